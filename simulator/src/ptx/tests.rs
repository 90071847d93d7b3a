//! Text that must be refused, with its line.

use crate::error::LoadError;
use crate::{DeviceMemory, Module};

fn load(body: &str) -> Result<Module, LoadError> {
    let source =
        format!(".version 7.4\n.target sm_87\n.address_size 64\n.visible .entry k()\n{{\n{body}\n}}\n");
    Module::load(&source, &DeviceMemory::new(1 << 20))
}

#[test]
fn an_unknown_opcode_is_named_with_its_line() {
    let error = load(".reg .b32 %r<3>;\nadd.s32 %r1, %r2, 1;\nfrobnicate.s32 %r1, %r2;\nret;").unwrap_err();
    assert_eq!(error, LoadError::Unsupported { line: 8, what: "`frobnicate.s32`".into() });
    // Nor is an unknown part of a known opcode ignored.
    let error = load(".reg .b32 %r<3>;\nadd.rz.f32 %r1, %r2, %r1;\nret;").unwrap_err();
    assert_eq!(error, LoadError::Unsupported { line: 7, what: "`add.rz.f32`".into() });
}

#[test]
fn unknown_names_and_unclosed_text_are_refused() {
    assert!(matches!(load("add.s32 %r1, %r2, 1;\nret;"), Err(LoadError::Syntax { line: 6, .. })));
    assert!(matches!(load("bra nowhere;\nret;"), Err(LoadError::Syntax { line: 6, .. })));
    assert!(matches!(load("/* no end\nret;"), Err(LoadError::Syntax { line: 6, .. })));
    let none = Module::load("int main() {}", &DeviceMemory::new(1));
    assert!(matches!(none, Err(LoadError::Syntax { .. })));
}
