//! The header of a safetensors file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use llamita::weights::Format;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};

/// A tensor as the header has it.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// Where a tensor lies.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    /// How its numbers are stored; the name of a type that is not read.
    pub format: std::result::Result<Format, String>,
    /// Rows first.
    pub shape: Vec<u64>,
    /// First byte, from the start of the file.
    pub offset: u64,
}

/// Bytes of a header, beyond which Hugging Face's own library refuses one, too.
const MAX_HEADER: u64 = 100_000_000;

/// Opens a file and reads where its tensors are.
pub(super) fn open(path: &Path) -> Result<(File, BTreeMap<String, Place>)> {
    let read = || {
        let file = File::open(path).map_err(Error::Read)?;
        let len = file.metadata().map_err(Error::Read)?.len();
        let places = header(&file, len)?;
        Ok((file, places))
    };
    read().map_err(|error: Error| error.at(path))
}

/// Reads the header of a file of this length: the length of the JSON, and the JSON.
fn header(mut file: impl Read, len: u64) -> Result<BTreeMap<String, Place>> {
    let truncated = |needed: u64| {
        Error::refused(format_args!(
            "the header takes {needed} bytes, the file has {len}: it is truncated or no safetensors file, \
             copy or download it again"
        ))
    };
    let mut prefix = [0; 8];
    file.read_exact(&mut prefix).map_err(|_| truncated(8))?;
    let data = u64::from_le_bytes(prefix).saturating_add(8);
    if data > len {
        return Err(truncated(data));
    }
    if data - 8 > MAX_HEADER {
        return Err(Error::refused(format_args!(
            "the header takes {} bytes, expected at most {MAX_HEADER}: the file is damaged, copy or download it again",
            data - 8
        )));
    }
    let mut json = vec![0; (data - 8) as usize];
    file.read_exact(&mut json).map_err(Error::Read)?;
    let damaged = |error: serde_json::Error| {
        Error::refused(format_args!(
            "the header is not as expected ({error}): copy or download the file again"
        ))
    };
    let entries: BTreeMap<String, Value> = serde_json::from_slice(&json).map_err(damaged)?;
    let mut places = BTreeMap::new();
    for (name, entry) in entries.into_iter().filter(|(name, _)| name != "__metadata__") {
        let Entry { dtype, shape, data_offsets: [start, end] } =
            serde_json::from_value(entry).map_err(damaged)?;
        let (format, size) = match dtype.as_str() {
            "F32" => (Ok(Format::F32), Some(4)),
            "F16" => (Ok(Format::F16), Some(2)),
            "BF16" => (Ok(Format::Bf16), Some(2)),
            _ => (Err(dtype), None),
        };
        let bytes = size.map(|size| shape.iter().fold(size, |bytes: u64, &size| bytes.saturating_mul(size)));
        let stop = data.saturating_add(end);
        if end < start || stop > len || bytes.is_some_and(|bytes| bytes != end - start) {
            return Err(Error::refused(format_args!(
                "tensor {name} of shape {shape:?} is at bytes {start} to {end} of {}: \
                 the file is truncated or damaged, copy or download it again",
                len - data
            )));
        }
        places.insert(name, Place { format, shape, offset: data + start });
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: &str, data: usize) -> Vec<u8> {
        [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &vec![0; data]].concat()
    }

    fn read(bytes: &[u8]) -> Result<BTreeMap<String, Place>> {
        header(bytes, bytes.len() as u64)
    }

    const JSON: &str = r#"{"__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [2], "data_offsets": [24, 28]},
        "c": {"dtype": "I64", "shape": [1], "data_offsets": [28, 36]}}"#;

    #[test]
    fn tensors_are_found() {
        let places = read(&file(JSON, 36)).unwrap();
        assert_eq!(places.len(), 3);
        let data = 8 + JSON.len() as u64;
        assert_eq!(places["b"], Place { format: Ok(Format::Bf16), shape: vec![2], offset: data + 24 });
        assert_eq!(places["c"].format, Err("I64".to_owned()));
    }

    #[test]
    fn damaged_headers_are_refused() {
        let whole = file(JSON, 36);
        for len in 0..whole.len() {
            assert!(read(&whole[..len]).is_err(), "{len}");
        }
        let mut long = whole.clone();
        long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(read(&long).unwrap_err().to_string().contains("truncated"));
        // A file may be larger than memory, and so may what it says of its header.
        let error = header(&long[..], u64::MAX).unwrap_err().to_string();
        assert!(error.contains("at most 100000000"), "{error}");
        for (old, new) in
            [("[0, 24]", "[0, 20]"), ("[0, 24]", "[24, 0]"), ("[2, 3]", "[2, 9223372036854775807]")]
        {
            let error = read(&file(&JSON.replace(old, new), 36)).unwrap_err().to_string();
            assert!(error.contains("tensor a"), "{error}");
        }
        assert!(read(&file("[]", 0)).is_err());
        assert!(read(&file(r#"{"a": 1}"#, 0)).is_err());
    }
}
