//! Where training is computed.

use crate::nn::Layout;
use burn::tensor::Device;

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DeviceKind {
    /// The processor, with our own kernels.
    Cpu,
    /// An NVIDIA GPU; needs the feature `cuda`.
    Cuda,
    /// Any GPU with Vulkan, Metal or DirectX; needs the feature `wgpu`.
    Wgpu,
}

/// This build cannot compute there.
#[derive(Debug, thiserror::Error)]
#[error("this build cannot compute on {0}: build the trainer with --features {0}")]
pub struct NotBuilt(&'static str);

impl DeviceKind {
    /// The device with gradients, and the layout that suits it.
    ///
    /// # Errors
    /// [`NotBuilt`].
    pub fn open(self) -> Result<(Device, Layout), NotBuilt> {
        match self {
            DeviceKind::Cpu => Ok((Device::flex().autodiff(), Layout::Nhwc)),
            #[cfg(feature = "cuda")]
            DeviceKind::Cuda => Ok((Device::cuda(0).autodiff(), Layout::Nchw)),
            #[cfg(feature = "wgpu")]
            DeviceKind::Wgpu => {
                Ok((Device::wgpu(burn::tensor::DeviceKind::DefaultDevice).autodiff(), Layout::Nchw))
            }
            #[cfg(not(feature = "cuda"))]
            DeviceKind::Cuda => Err(NotBuilt("cuda")),
            #[cfg(not(feature = "wgpu"))]
            DeviceKind::Wgpu => Err(NotBuilt("wgpu")),
        }
    }
}
