//! Results of the driver's functions, as in `cuda.h`.

/// 0 is success.
pub type Code = u32;

/// A result that is not success.
pub type Outcome<T = ()> = Result<T, Code>;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal $text:literal;)*) => {
        $($(#[$doc])* pub const $name: Code = $value;)*

        /// The name in `cuda.h`, ended by a 0.
        pub fn name(code: Code) -> Option<&'static std::ffi::CStr> {
            match code {
                $($value => Some($text),)*
                _ => None,
            }
        }
    };
}

codes! {
    /// Done.
    SUCCESS = 0 c"CUDA_SUCCESS";
    /// An argument that makes no sense.
    INVALID_VALUE = 1 c"CUDA_ERROR_INVALID_VALUE";
    /// No memory left.
    OUT_OF_MEMORY = 2 c"CUDA_ERROR_OUT_OF_MEMORY";
    /// `cuInit` was not called.
    NOT_INITIALIZED = 3 c"CUDA_ERROR_NOT_INITIALIZED";
    /// The device is gone.
    DEVICE_UNAVAILABLE = 46 c"CUDA_ERROR_DEVICE_UNAVAILABLE";
    /// There is none.
    NO_DEVICE = 100 c"CUDA_ERROR_NO_DEVICE";
    /// There is none of this number.
    INVALID_DEVICE = 101 c"CUDA_ERROR_INVALID_DEVICE";
    /// No context is current.
    INVALID_CONTEXT = 201 c"CUDA_ERROR_INVALID_CONTEXT";
    /// The module is for another architecture.
    NO_BINARY_FOR_GPU = 209 c"CUDA_ERROR_NO_BINARY_FOR_GPU";
    /// The text is no PTX.
    INVALID_PTX = 218 c"CUDA_ERROR_INVALID_PTX";
    /// The PTX is newer than the driver.
    UNSUPPORTED_PTX_VERSION = 222 c"CUDA_ERROR_UNSUPPORTED_PTX_VERSION";
    /// A handle that nothing has.
    INVALID_HANDLE = 400 c"CUDA_ERROR_INVALID_HANDLE";
    /// No kernel or variable of this name.
    NOT_FOUND = 500 c"CUDA_ERROR_NOT_FOUND";
    /// Not done yet.
    NOT_READY = 600 c"CUDA_ERROR_NOT_READY";
    /// A kernel left its memory.
    ILLEGAL_ADDRESS = 700 c"CUDA_ERROR_ILLEGAL_ADDRESS";
    /// The launch does not fit the device.
    LAUNCH_OUT_OF_RESOURCES = 701 c"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES";
    /// A kernel took too long.
    LAUNCH_TIMEOUT = 702 c"CUDA_ERROR_LAUNCH_TIMEOUT";
    /// The context was destroyed.
    CONTEXT_IS_DESTROYED = 709 c"CUDA_ERROR_CONTEXT_IS_DESTROYED";
    /// A kernel's access was not aligned.
    MISALIGNED_ADDRESS = 716 c"CUDA_ERROR_MISALIGNED_ADDRESS";
    /// A kernel failed otherwise.
    LAUNCH_FAILED = 719 c"CUDA_ERROR_LAUNCH_FAILED";
    /// Not while a stream is captured, or not in this library.
    STREAM_CAPTURE_UNSUPPORTED = 900 c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED";
}
