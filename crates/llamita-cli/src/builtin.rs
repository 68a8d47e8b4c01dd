//! Models that are part of the program.

use std::path::Path;

/// A model file in the program's own constants, at a multiple of 64 bytes as its tensors are.
#[repr(C, align(64))]
struct Aligned<B: ?Sized>(B);

/// A model that needs no file.
pub struct BuiltIn {
    /// What it is named by.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    content: &'static Aligned<[u8]>,
}

/// The models, that which is used without a name first.
pub const ALL: &[BuiltIn] = &[
    BuiltIn {
        name: "tiny",
        about: "stories for small children, one million weights",
        content: &Aligned(*include_bytes!("../../../models/tiny.gguf")),
    },
    BuiltIn {
        name: "nano",
        about: "the same for chips without external memory, a quarter of a million weights",
        content: &Aligned(*include_bytes!("../../../models/nano.gguf")),
    },
];

impl BuiltIn {
    /// The model of this name, unless there is a file of it.
    pub fn find(path: &Path) -> Option<&'static Self> {
        let model = ALL.iter().find(|model| path == Path::new(model.name))?;
        (!path.is_file()).then_some(model)
    }

    /// Its bytes: device GGUF with its tokenizer inside.
    pub const fn bytes(&self) -> &'static [u8] {
        &self.content.0
    }
}
