//! Page-locked memory through the exported functions: kernels and the program see the same bytes.

use fovea_simulator_driver::code::{INVALID_VALUE, SUCCESS};
use fovea_simulator_driver::exports::{device, memory, module, stream};
use std::ffi::c_void;

/// Adds 1 to a byte.
const PTX: &std::ffi::CStr =
    c".version 6.5\n.target sm_53\n.address_size 64\n.visible .entry more(.param .u64 more_0)\n{\n\
    .reg .b32 %r<2>;\n.reg .b64 %rd<3>;\nld.param.u64 %rd1, [more_0];\ncvta.to.global.u64 %rd2, %rd1;\n\
    ld.global.u8 %r1, [%rd2];\nadd.s32 %r1, %r1, 1;\nst.global.u8 [%rd2], %r1;\nret;\n}\n";

fn pinned(bytes: usize, flags: u32) -> *mut u8 {
    let mut pointer = std::ptr::null_mut();
    // SAFETY: the place for the result is valid.
    assert_eq!(unsafe { memory::cuMemHostAlloc(&raw mut pointer, bytes, flags) }, SUCCESS);
    pointer
}

fn address(pointer: *mut u8, flags: u32) -> Result<u64, u32> {
    let mut address = 0;
    // SAFETY: as above.
    match unsafe { memory::cuMemHostGetDevicePointer_v2(&raw mut address, pointer, flags) } {
        SUCCESS => Ok(address),
        code => Err(code),
    }
}

#[test]
fn a_kernel_works_in_the_program_s_own_memory() {
    let (mut context, mut loaded, mut kernel) = (0, 0, 0);
    assert_eq!(device::cuInit(0), SUCCESS);
    // SAFETY: the places for results are valid, the text ends with a 0.
    unsafe {
        assert_eq!(device::cuDevicePrimaryCtxRetain(&raw mut context, 0), SUCCESS);
        assert_eq!(device::cuCtxSetCurrent(context), SUCCESS);
        assert_eq!(module::cuModuleLoadData(&raw mut loaded, PTX.as_ptr()), SUCCESS);
        assert_eq!(module::cuModuleGetFunction(&raw mut kernel, loaded, c"more".as_ptr()), SUCCESS);
    }
    let mapped = pinned(16, 2);
    let start = address(mapped, 0).unwrap();
    assert_ne!(start, mapped as u64, "the device has its own address");
    assert_eq!(address(mapped.wrapping_add(5), 0), Ok(start + 5));
    // SAFETY: the sixteen bytes are ours, and nothing runs.
    unsafe { mapped.write(41) };
    let arguments = [std::ptr::from_ref(&start).cast::<c_void>()];
    // SAFETY: the kernel has one argument, an address.
    let code = unsafe {
        module::cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, 0, arguments.as_ptr(), std::ptr::null())
    };
    assert_eq!((code, stream::cuStreamSynchronize(0)), (SUCCESS, SUCCESS));
    // SAFETY: as above.
    assert_eq!(unsafe { mapped.read() }, 42);
    // What was not mapped when it was taken, flags that do not exist, memory of nobody.
    assert_eq!(address(pinned(16, 0), 0), Err(INVALID_VALUE));
    assert_eq!(address(mapped, 1), Err(INVALID_VALUE));
    assert_eq!(address(std::ptr::dangling_mut(), 0), Err(INVALID_VALUE));
    assert_eq!(memory::cuMemFreeHost(mapped), SUCCESS);
    assert_eq!(address(mapped, 0), Err(INVALID_VALUE));
}
