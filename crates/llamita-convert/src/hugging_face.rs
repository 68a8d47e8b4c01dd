//! Models of Hugging Face: a folder with `config.json`, safetensors and a tokenizer.

mod config;
mod read;
mod safetensors;
mod tokenizer;
mod write;

pub use read::Folder;
pub use tokenizer::{tokenizer_config_json, tokenizer_model};
pub use write::{config_json, write_safetensors};

use llamita::weights::{Matrix, Norm, Tensor};

/// The name of a tensor.
fn name(tensor: Tensor) -> String {
    let (layer, part) = match tensor {
        Tensor::Embedding => return "model.embed_tokens.weight".to_owned(),
        Tensor::Norm(Norm::Final) => return "model.norm.weight".to_owned(),
        Tensor::Matrix(Matrix::Classifier) => return "lm_head.weight".to_owned(),
        Tensor::Norm(Norm::Attention(layer)) => (layer, "input_layernorm"),
        Tensor::Norm(Norm::FeedForward(layer)) => (layer, "post_attention_layernorm"),
        Tensor::Matrix(Matrix::Wq(layer)) => (layer, "self_attn.q_proj"),
        Tensor::Matrix(Matrix::Wk(layer)) => (layer, "self_attn.k_proj"),
        Tensor::Matrix(Matrix::Wv(layer)) => (layer, "self_attn.v_proj"),
        Tensor::Matrix(Matrix::Wo(layer)) => (layer, "self_attn.o_proj"),
        Tensor::Matrix(Matrix::W1(layer)) => (layer, "mlp.gate_proj"),
        Tensor::Matrix(Matrix::W3(layer)) => (layer, "mlp.up_proj"),
        Tensor::Matrix(Matrix::W2(layer)) => (layer, "mlp.down_proj"),
    };
    format!("model.layers.{layer}.{part}.weight")
}

/// Whether the order of rows within heads differs between Hugging Face and the others.
const fn has_heads(tensor: Tensor) -> bool {
    matches!(tensor, Tensor::Matrix(Matrix::Wq(_) | Matrix::Wk(_)))
}
