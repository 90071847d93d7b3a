//! A model package on disk: `manifest.toml`, `model.onnx`, `head.safetensors`, `gate.safetensors`, checksums.
