//! `config.json`.

use llamita::Config;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};

/// What is read of it. A field that is null is as good as missing.
#[derive(Deserialize)]
struct Fields {
    architectures: Option<Vec<String>>,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: Option<f32>,
    rope_theta: Option<f32>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<Value>,
    partial_rotary_factor: Option<f32>,
    tie_word_embeddings: Option<bool>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    sliding_window: Option<usize>,
    quantization_config: Option<Value>,
    bos_token_id: Option<Value>,
    eos_token_id: Option<Value>,
}

/// The shape of a model, and the tokens that its config names.
pub(super) struct Parsed {
    pub config: Config,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
}

/// Reads a `config.json`, refusing what the engine does not compute.
pub(super) fn parse(json: &[u8]) -> Result<Parsed> {
    let fields: Fields = serde_json::from_slice(json).map_err(|error| {
        Error::refused(format_args!(
            "it is no config of a Llama model ({error}): copy or download the model again, \
             or choose a Llama-family model"
        ))
    })?;
    check_supported(&fields)?;
    let n_heads = fields.num_attention_heads;
    let even = fields.hidden_size.checked_div(n_heads).unwrap_or(0);
    let theta = fields.rope_parameters.as_ref().and_then(|rope| rope.get("rope_theta")?.as_f64());
    let config = Config {
        dim: fields.hidden_size,
        hidden_dim: fields.intermediate_size,
        n_layers: fields.num_hidden_layers,
        n_heads,
        n_kv_heads: fields.num_key_value_heads.unwrap_or(n_heads),
        head_size: fields.head_dim.unwrap_or(even),
        vocab_size: fields.vocab_size,
        seq_len: fields.max_position_embeddings,
        norm_eps: fields.rms_norm_eps.unwrap_or(1e-6),
        rope_theta: fields.rope_theta.or(theta.map(|theta| theta as f32)).unwrap_or(10000.0),
        shared_classifier: fields.tie_word_embeddings.unwrap_or(false),
    };
    config.check().map_err(|error| {
        Error::refused(format_args!(
            "{error}: the file is damaged, or the model is not one that llamita runs"
        ))
    })?;
    // Some models end a text with any of several tokens: the first is the one of plain text.
    let id = |value: Option<Value>| match value {
        Some(Value::Array(ids)) => ids.first().and_then(Value::as_u64),
        Some(value) => value.as_u64(),
        None => None,
    };
    // Some configs name tokens that their model does not have; the tokenizer knows better.
    let id = |value| {
        id(value).and_then(|id| u32::try_from(id).ok()).filter(|&id| (id as usize) < config.vocab_size)
    };
    Ok(Parsed { config, bos: id(fields.bos_token_id), eos: id(fields.eos_token_id) })
}

fn check_supported(fields: &Fields) -> Result<()> {
    let refuse = |what: String| {
        Err(Error::refused(format_args!(
            "{what}, and ignoring it would compute a different model: choose a plain Llama model"
        )))
    };
    match fields.architectures.as_deref().unwrap_or_default() {
        [one] if one == "LlamaForCausalLM" || one == "MistralForCausalLM" => (),
        others => {
            let found =
                if others.is_empty() { "not named".to_owned() } else { format!("\"{}\"", others.join(", ")) };
            return Err(Error::refused(format_args!(
                "the architecture is {found}, supported are \"LlamaForCausalLM\" and \"MistralForCausalLM\": \
                 choose a Llama-family model"
            )));
        }
    }
    let is_default = |rope: &Value| {
        let kind = rope.get("rope_type").or_else(|| rope.get("type")).and_then(Value::as_str);
        kind.is_some_and(|kind| kind == "default")
    };
    if let Some(rope) =
        fields.rope_scaling.iter().chain(&fields.rope_parameters).find(|rope| !is_default(rope))
    {
        return refuse(format!("rope scaling is not supported ({rope})"));
    }
    if let Some(window) = fields.sliding_window
        && window < fields.max_position_embeddings
    {
        return refuse(format!("a sliding window of {window} is not supported (sliding_window)"));
    }
    if fields.partial_rotary_factor.is_some_and(|factor| factor != 1.0) {
        return refuse("rope on a part of a head is not supported (partial_rotary_factor)".to_owned());
    }
    for (name, flag) in [("attention_bias", fields.attention_bias), ("mlp_bias", fields.mlp_bias)] {
        if flag == Some(true) {
            return refuse(format!("biases are not supported ({name})"));
        }
    }
    match fields.hidden_act.as_deref() {
        None | Some("silu" | "swish") => (),
        Some(other) => return refuse(format!("hidden_act \"{other}\" is not supported, only \"silu\" is")),
    }
    if fields.quantization_config.is_some() {
        return Err(Error::refused(
            "the weights are quantized (quantization_config), supported are F32, F16 and BF16: \
             choose the model that was not quantized",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plain() -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 172,
            "num_hidden_layers": 5, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 512,
            "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
            "rope_scaling": null, "bos_token_id": 1, "eos_token_id": [2, 3]
        })
    }

    fn with(key: &str, value: Value) -> Result<Parsed> {
        let mut config = plain();
        config[key] = value;
        parse(config.to_string().as_bytes())
    }

    #[test]
    fn a_plain_config_is_read() {
        let found = parse(plain().to_string().as_bytes()).unwrap();
        assert_eq!((found.bos, found.eos), (Some(1), Some(2)));
        let config = found.config;
        assert_eq!((config.dim, config.head_size, config.seq_len, config.rope_theta), (64, 8, 256, 10000.0));
        assert!(config.shared_classifier && config.norm_eps == 1e-5);
        assert_eq!(with("head_dim", json!(16)).unwrap().config.head_size, 16);
        assert_eq!(with("rope_theta", json!(500000.0)).unwrap().config.rope_theta, 500000.0);
        let newer = json!({"rope_type": "default", "rope_theta": 20000.0});
        assert_eq!(with("rope_parameters", newer).unwrap().config.rope_theta, 20000.0);
        assert!(with("sliding_window", json!(256)).is_ok());
        assert_eq!(with("eos_token_id", json!(512)).unwrap().eos, None);
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        for (key, value, part) in [
            ("architectures", json!(["Qwen2ForCausalLM"]), "\"Qwen2ForCausalLM\", supported are \"LlamaFor"),
            ("architectures", json!([]), "not named"),
            ("rope_scaling", json!({"rope_type": "llama3", "factor": 8.0}), "rope scaling"),
            ("rope_scaling", json!({"type": "linear", "factor": 2.0}), "linear"),
            ("rope_parameters", json!({"rope_type": "yarn"}), "yarn"),
            ("attention_bias", json!(true), "attention_bias"),
            ("mlp_bias", json!(true), "mlp_bias"),
            ("sliding_window", json!(128), "sliding window of 128"),
            ("hidden_act", json!("gelu"), "gelu"),
            ("partial_rotary_factor", json!(0.5), "partial_rotary_factor"),
            ("quantization_config", json!({"bits": 4}), "quantization_config"),
            ("hidden_size", json!("many"), "no config of a Llama model"),
            ("num_attention_heads", json!(0), "n_heads is 0"),
            ("num_key_value_heads", json!(3), "3 key/value heads do not divide 8"),
        ] {
            let error = with(key, value).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(part), "{key}: {error}");
        }
        assert!(parse(b"{").is_err());
        assert!(parse(b"[]").is_err());
    }
}
