//! `tokenizer.model`, the format of SentencePiece: messages of Protocol Buffers.

use serde_json::json;

use crate::vocabulary::{Vocabulary, VocabularyModel};

/// `tokenizer.model` of a vocabulary with scores; none for byte-level ones, and for tokens that are not text.
///
/// What SentencePiece needs to encode is there, not how the vocabulary was trained.
pub fn tokenizer_model(vocabulary: &Vocabulary) -> Option<Vec<u8>> {
    if vocabulary.model != VocabularyModel::Llama {
        return None;
    }
    let mut model = Vec::new();
    let pieces = vocabulary.tokens.iter().zip(&vocabulary.scores).zip(&vocabulary.types);
    for ((token, score), &kind) in pieces {
        let mut piece = Vec::new();
        bytes_field(&mut piece, 1, str::from_utf8(token).ok()?.as_bytes());
        piece.extend([2 << 3 | 5]);
        piece.extend(score.to_le_bytes());
        // The numbers of the types are those of GGUF.
        integer_field(&mut piece, 3, kind.into());
        bytes_field(&mut model, 1, &piece);
    }
    let id = |id: Option<u32>| id.map_or(-1, i64::from);
    let mut trainer = Vec::new();
    const BPE: i64 = 2;
    for (field, value) in [
        (3, BPE),
        (4, vocabulary.tokens.len() as i64),
        // Bytes stand for characters that are no piece.
        (35, 1),
        (40, id(vocabulary.unknown)),
        (41, id(vocabulary.bos)),
        (42, id(vocabulary.eos)),
        (43, id(vocabulary.padding)),
    ] {
        integer_field(&mut trainer, field, value);
    }
    bytes_field(&mut model, 2, &trainer);
    let mut normalizer = Vec::new();
    bytes_field(&mut normalizer, 1, b"identity");
    // A space before the text, all spaces kept, and written as marks.
    for (field, flag) in [(3, vocabulary.add_space_prefix), (4, false), (5, true)] {
        integer_field(&mut normalizer, field, flag.into());
    }
    bytes_field(&mut model, 3, &normalizer);
    Some(model)
}

/// `tokenizer_config.json` beside a `tokenizer.model`.
pub fn tokenizer_config_json(vocabulary: &Vocabulary) -> String {
    let name = |id: Option<u32>| {
        let token = vocabulary.tokens.get(id? as usize)?;
        Some(String::from_utf8_lossy(token).into_owned())
    };
    let json = json!({
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": name(vocabulary.bos),
        "eos_token": name(vocabulary.eos),
        "unk_token": name(vocabulary.unknown),
        "pad_token": name(vocabulary.padding),
        "add_bos_token": vocabulary.add_bos,
        "add_eos_token": false,
        "add_prefix_space": vocabulary.add_space_prefix,
        "clean_up_tokenization_spaces": false,
        "chat_template": vocabulary.chat_template,
    });
    format!("{json:#}\n")
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn integer_field(bytes: &mut Vec<u8>, field: u64, value: i64) {
    varint(bytes, field << 3);
    varint(bytes, value as u64);
}

fn bytes_field(bytes: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(bytes, field << 3 | 2);
    varint(bytes, value.len() as u64);
    bytes.extend(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::from_llama2c_bin;

    #[test]
    fn pieces_are_written_as_sentencepiece_has_them() {
        let mut bin = 6_i32.to_le_bytes().to_vec();
        for piece in ["<unk>", "\n<s>\n", "\n</s>\n"] {
            bin.extend(0_f32.to_le_bytes());
            bin.extend((piece.len() as i32).to_le_bytes());
            bin.extend(piece.bytes());
        }
        let mut vocabulary = from_llama2c_bin(&bin).unwrap();
        let model = tokenizer_model(&vocabulary).unwrap();
        // As the library writes it.
        let pieces = b"\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0\x18\x02\x0a\x0c\x0a\x03<s>\x15\0\0\0\0\x18\x03";
        assert!(model.starts_with(pieces), "{}", model.escape_ascii());
        assert!(model.windows(3).any(|field| field == b"\x98\x02\x01"), "byte fallback");
        assert!(model.ends_with(b"\x0a\x08identity\x18\x01\x20\0\x28\x01"), "{}", model.escape_ascii());
        let json: serde_json::Value = serde_json::from_str(&tokenizer_config_json(&vocabulary)).unwrap();
        assert_eq!((&json["bos_token"], &json["unk_token"]), (&"<s>".into(), &"<unk>".into()));
        vocabulary.tokens[2] = vec![0xff];
        assert_eq!(tokenizer_model(&vocabulary), None);
    }
}
