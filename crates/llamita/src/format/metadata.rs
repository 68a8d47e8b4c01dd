//! The first part of a GGUF file: the header and the metadata, walked in place.

use super::{FormatError, Kind, Name};

pub(super) const MAGIC: [u8; 4] = *b"GGUF";

/// What is read of the metadata. Every other key is skipped.
pub(super) const KEYS: [&str; 38] = [
    "llamita.layout",
    "llamita.checksums",
    "general.architecture",
    "general.name",
    "general.alignment",
    "split.count",
    "llama.embedding_length",
    "llama.feed_forward_length",
    "llama.block_count",
    "llama.context_length",
    "llama.vocab_size",
    "llama.attention.head_count",
    "llama.attention.head_count_kv",
    "llama.attention.key_length",
    "llama.attention.value_length",
    "llama.attention.layer_norm_rms_epsilon",
    "llama.attention.clamp_kqv",
    "llama.attention.causal",
    "llama.attention.sliding_window",
    "llama.expert_count",
    "llama.logit_scale",
    "llama.rope.dimension_count",
    "llama.rope.freq_base",
    "llama.rope.scale_linear",
    "llama.rope.scaling.type",
    "llama.rope.scaling.factor",
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.add_space_prefix",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_eos_token",
];

/// A file read from front to back; nothing is taken beyond its end.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, len: bytes.len() }
    }

    /// The place in the file, in bytes.
    pub fn at(&self) -> usize {
        self.len - self.rest.len()
    }

    /// The next `count` bytes; `what` they are is for the error.
    pub fn take(&mut self, count: u64, what: &'static str) -> Result<&'a [u8], FormatError> {
        let split = usize::try_from(count).ok().and_then(|count| self.rest.split_at_checked(count));
        let Some((taken, rest)) = split else {
            let (at, left) = (self.at() as u64, self.rest.len() as u64);
            return Err(FormatError::Truncated { what, at, needed: count, left });
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], FormatError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    pub fn u32(&mut self, what: &'static str) -> Result<u32, FormatError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: &'static str) -> Result<u64, FormatError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A string: its length and its bytes.
    pub fn string(&mut self, what: &'static str) -> Result<&'a [u8], FormatError> {
        let len = self.u64(what)?;
        self.take(len, what)
    }

    /// A count of things that take at least `least` bytes each, so that a nonsensical one is noticed
    /// before it is believed.
    fn count(&mut self, least: u64, what: &'static str) -> Result<u64, FormatError> {
        let count = self.u64(what)?;
        let (at, left) = (self.at() as u64, self.rest.len() as u64);
        let needed = count.saturating_mul(least);
        if needed > left {
            return Err(FormatError::Truncated { what, at, needed, left });
        }
        Ok(count)
    }
}

/// An array in the metadata of a GGUF file.
#[derive(Clone, Copy, Debug)]
pub struct Array<'a> {
    /// The number of its elements' type in GGUF: 5 for `i32`, 6 for `f32`, 8 for strings.
    pub element: u32,
    /// Its elements.
    pub count: u64,
    /// The elements one after another, little-endian; strings have their length before them.
    pub bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// The strings of an array of strings; nothing for arrays of other types.
    pub fn strings(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let count = if self.element == TYPE_STRING { self.count } else { 0 };
        let mut cursor = Cursor::new(self.bytes);
        // The array has been walked when it was read.
        (0..count).map_while(move |_| cursor.string("a metadata array").ok())
    }

    /// The elements of an array of numbers of four bytes, for the caller to interpret; nothing for others.
    pub fn words(&self) -> impl Iterator<Item = [u8; 4]> + use<'a> {
        let is_word = matches!(self.element, 4 | TYPE_I32 | TYPE_F32);
        let bytes = if is_word { self.bytes } else { &[] };
        bytes.as_chunks().0.iter().copied()
    }
}

/// A value in the metadata of a GGUF file; numbers of all widths are one kind.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// An integer from 0 on.
    Unsigned(u64),
    /// An integer below 0.
    Negative(i64),
    /// A floating point number.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Text, which should be UTF-8.
    String(&'a [u8]),
    /// Values of one type.
    Array(Array<'a>),
}

pub(super) const TYPE_U32: u32 = 4;
pub(super) const TYPE_I32: u32 = 5;
pub(super) const TYPE_F32: u32 = 6;
pub(super) const TYPE_STRING: u32 = 8;
const TYPE_ARRAY: u32 = 9;

impl<'a> Value<'a> {
    fn integer(value: i64) -> Self {
        u64::try_from(value).map_or(Self::Negative(value), Self::Unsigned)
    }

    fn read(cursor: &mut Cursor<'a>, key: &[u8]) -> Result<Self, FormatError> {
        const WHAT: &str = "a metadata value";
        let kind = cursor.u32(WHAT)?;
        Ok(match kind {
            0 => Self::Unsigned(u8::from_le_bytes(cursor.array(WHAT)?).into()),
            1 => Self::integer(i8::from_le_bytes(cursor.array(WHAT)?).into()),
            2 => Self::Unsigned(u16::from_le_bytes(cursor.array(WHAT)?).into()),
            3 => Self::integer(i16::from_le_bytes(cursor.array(WHAT)?).into()),
            TYPE_U32 => Self::Unsigned(cursor.u32(WHAT)?.into()),
            TYPE_I32 => Self::integer(i32::from_le_bytes(cursor.array(WHAT)?).into()),
            TYPE_F32 => Self::Float(f32::from_le_bytes(cursor.array(WHAT)?).into()),
            7 => Self::Bool(cursor.array::<1>(WHAT)? != [0]),
            TYPE_STRING => Self::String(cursor.string(WHAT)?),
            TYPE_ARRAY => Self::Array(Self::array(cursor, key)?),
            10 => Self::Unsigned(cursor.u64(WHAT)?),
            11 => Self::integer(i64::from_le_bytes(cursor.array(WHAT)?)),
            12 => Self::Float(f64::from_le_bytes(cursor.array(WHAT)?)),
            _ => return Err(FormatError::ValueType { key: Name::new(key), found: kind }),
        })
    }

    fn array(cursor: &mut Cursor<'a>, key: &[u8]) -> Result<Array<'a>, FormatError> {
        const WHAT: &str = "a metadata array";
        let element = cursor.u32(WHAT)?;
        let size = match element {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            TYPE_U32 | TYPE_I32 | TYPE_F32 => 4,
            // A string has at least its length.
            10..=12 | TYPE_STRING => 8,
            TYPE_ARRAY => return Err(FormatError::NestedArray(Name::new(key))),
            _ => return Err(FormatError::ValueType { key: Name::new(key), found: element }),
        };
        let count = cursor.count(size, WHAT)?;
        let start = *cursor;
        if element == TYPE_STRING {
            for _ in 0..count {
                cursor.string(WHAT)?;
            }
        } else {
            cursor.take(count * size, WHAT)?;
        }
        let bytes = &start.rest[..cursor.at() - start.at()];
        Ok(Array { element, count, bytes })
    }

    /// What the value is, for errors.
    fn kind(&self) -> &'static str {
        match self {
            Self::Unsigned(_) => "integer",
            Self::Negative(_) => "negative integer",
            Self::Float(_) => "float",
            Self::Bool(_) => "bool",
            Self::String(_) => "string",
            Self::Array(_) => "array",
        }
    }

    /// The value as a number, to compare it with one.
    pub fn number(&self) -> Option<f64> {
        match *self {
            Self::Unsigned(value) => Some(value as f64),
            Self::Negative(value) => Some(value as f64),
            Self::Float(value) => Some(value),
            Self::Bool(value) => Some(value.into()),
            Self::String(_) | Self::Array(_) => None,
        }
    }
}

/// The values of [`KEYS`], and where the rest of the file begins.
pub(super) struct Metadata<'a> {
    values: [Option<Value<'a>>; KEYS.len()],
    /// Tensors that the header announces.
    pub tensor_count: u64,
    /// The file from the first tensor info on.
    pub tensor_infos: Cursor<'a>,
}

/// The first value of any key in a file that [`Metadata::read`] accepts.
pub(super) fn find<'a>(bytes: &'a [u8], wanted: &str) -> Option<Value<'a>> {
    let mut cursor = Cursor::new(bytes);
    cursor.take(MAGIC.len() as u64 + 4 + 8, "the header").ok()?;
    for _ in 0..cursor.u64("the metadata").ok()? {
        let key = cursor.string("a metadata key").ok()?;
        let value = Value::read(&mut cursor, key).ok()?;
        if key == wanted.as_bytes() {
            return Some(value);
        }
    }
    None
}

impl<'a> Metadata<'a> {
    /// Reads the header and the metadata of a file that has the magic number.
    pub fn read(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new(bytes);
        cursor.take(MAGIC.len() as u64, "the header")?;
        let version = cursor.u32("the header")?;
        match version {
            2 | 3 => (),
            _ if version != 0 && version & 0xffff == 0 => return Err(FormatError::BigEndian),
            _ => return Err(FormatError::Version { kind: Kind::Gguf, found: version }),
        }
        // The least tensor info: length of the name, dimensions, type, offset.
        let tensor_count = cursor.count(8 + 4 + 4 + 8, "the list of tensors")?;
        // The least entry: length of the key, type, one byte.
        let count = cursor.count(8 + 4 + 1, "the metadata")?;
        let mut values = [None; KEYS.len()];
        for _ in 0..count {
            let key = cursor.string("a metadata key")?;
            let value = Value::read(&mut cursor, key)?;
            if let Some(index) = KEYS.iter().position(|known| known.as_bytes() == key)
                && values[index].replace(value).is_some()
            {
                return Err(FormatError::DuplicateKey(KEYS[index]));
            }
        }
        Ok(Self { values, tensor_count, tensor_infos: cursor })
    }

    /// The value of a key, which is one of [`KEYS`].
    pub fn get(&self, key: &'static str) -> Option<Value<'a>> {
        let index = KEYS.iter().position(|&known| known == key);
        debug_assert!(index.is_some(), "{key} is not looked for");
        self.values[index?]
    }

    /// An integer of any width.
    pub fn integer(&self, key: &'static str) -> Result<Option<u64>, FormatError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Unsigned(value)) => Ok(Some(value)),
            Some(Value::Array(_)) => Err(FormatError::PerLayer(key)),
            Some(other) => Err(wrong_type(key, &other, "integer from 0")),
        }
    }

    /// A floating point number of either width.
    pub fn float(&self, key: &'static str) -> Result<Option<f32>, FormatError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Float(value)) => Ok(Some(value as f32)),
            Some(Value::Array(_)) => Err(FormatError::PerLayer(key)),
            Some(other) => Err(wrong_type(key, &other, "float")),
        }
    }

    pub fn bool(&self, key: &'static str) -> Result<Option<bool>, FormatError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(wrong_type(key, &other, "bool")),
        }
    }

    pub fn string(&self, key: &'static str) -> Result<Option<&'a [u8]>, FormatError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(value)) => Ok(Some(value)),
            Some(other) => Err(wrong_type(key, &other, "string")),
        }
    }

    /// An array of elements of one type, which `expected` names.
    pub fn array(
        &self,
        key: &'static str,
        element: u32,
        expected: &'static str,
    ) -> Result<Option<Array<'a>>, FormatError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) if array.element == element => Ok(Some(array)),
            Some(Value::Array(_)) => {
                Err(FormatError::KeyType { key, found: "array of another type", expected })
            }
            Some(other) => Err(wrong_type(key, &other, expected)),
        }
    }
}

fn wrong_type(key: &'static str, found: &Value<'_>, expected: &'static str) -> FormatError {
    FormatError::KeyType { key, found: found.kind(), expected }
}
