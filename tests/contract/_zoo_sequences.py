"""Text, sound and time series models of transformers."""

from __future__ import annotations

from typing import Any

import torch

from tests.contract._zoo import ROWS, Entry, reals, transformer

_TOKENS, _LENGTH = 40, 7
_BERT: dict[str, Any] = {
    "vocab_size": _TOKENS, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 16, "num_labels": 3, "pad_token_id": 0,
}  # fmt: skip
_DECODER = _BERT | {"use_cache": False, "bos_token_id": 1, "eos_token_id": 2}
_WAVES: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "conv_dim": [8, 8], "conv_kernel": [5, 3], "conv_stride": [4, 2], "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "vocab_size": 10, "apply_spec_augment": False,
    "layerdrop": 0.0,
}  # fmt: skip


def _tokens() -> dict[str, Any]:
    return {"input_ids": torch.randint(3, _TOKENS, (ROWS, _LENGTH)), "attention_mask": torch.ones(ROWS, _LENGTH).long()}


def _pairs() -> dict[str, Any]:
    return {**_tokens(), "decoder_input_ids": torch.randint(3, _TOKENS, (ROWS, 5))}


def _waves() -> dict[str, Any]:
    return {"input_values": torch.randn(ROWS, 400)}


def _entry(name: str, kind: str, config: str, settings: dict[str, Any], batch: Any = _tokens) -> Entry:
    return Entry(name, transformer(kind, settings, config=config), batch)


SEQUENCES = (
    _entry("bert", "BertForSequenceClassification", "BertConfig", _BERT),
    _entry("bert-mlm", "BertForMaskedLM", "BertConfig", _BERT),
    _entry("roberta", "RobertaForSequenceClassification", "RobertaConfig", _BERT),
    _entry("distilbert", "DistilBertForSequenceClassification", "DistilBertConfig",
           {"vocab_size": _TOKENS, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "num_labels": 3,
            "max_position_embeddings": 16}),
    _entry("albert", "AlbertForSequenceClassification", "AlbertConfig",
           _BERT | {"embedding_size": 8, "hidden_dropout_prob": 0.1}),
    _entry("electra", "ElectraForSequenceClassification", "ElectraConfig", _BERT | {"embedding_size": 8}),
    _entry("convbert", "ConvBertForSequenceClassification", "ConvBertConfig", _BERT | {"embedding_size": 16}),
    _entry("fnet", "FNetForSequenceClassification", "FNetConfig", _BERT,
           lambda: {"input_ids": torch.randint(3, _TOKENS, (ROWS, _LENGTH))}),
    _entry("gpt2", "GPT2LMHeadModel", "GPT2Config",
           {"vocab_size": _TOKENS, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16, "use_cache": False,
            "bos_token_id": 1, "eos_token_id": 2}),
    _entry("opt", "OPTForCausalLM", "OPTConfig",
           _DECODER | {"ffn_dim": 32, "word_embed_proj_dim": 16}),
    _entry("gpt-neo", "GPTNeoForCausalLM", "GPTNeoConfig",
           {"vocab_size": _TOKENS, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "use_cache": False,
            "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 16, "window_size": 4,
            "bos_token_id": 1, "eos_token_id": 2}),
    _entry("llama", "LlamaForCausalLM", "LlamaConfig", _DECODER | {"num_key_value_heads": 1}),
    _entry("mamba", "MambaForCausalLM", "MambaConfig",
           {"vocab_size": _TOKENS, "hidden_size": 16, "state_size": 4, "num_hidden_layers": 2, "use_cache": False,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}),
    _entry("t5", "T5ForConditionalGeneration", "T5Config",
           {"vocab_size": _TOKENS, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2,
            "use_cache": False, "pad_token_id": 0, "decoder_start_token_id": 0}, _pairs),
    _entry("bart", "BartForConditionalGeneration", "BartConfig",
           {"vocab_size": _TOKENS, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
            "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
            "max_position_embeddings": 16, "use_cache": False, "pad_token_id": 0, "bos_token_id": 1,
            "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": None}, _pairs),
    _entry("wav2vec2", "Wav2Vec2ForCTC", "Wav2Vec2Config", _WAVES, _waves),
    _entry("wav2vec2-conformer", "Wav2Vec2ConformerForCTC", "Wav2Vec2ConformerConfig",
           _WAVES | {"position_embeddings_type": None}, _waves),
    _entry("patchtst", "PatchTSTForClassification", "PatchTSTConfig",
           {"num_input_channels": 2, "context_length": 16, "patch_length": 4, "patch_stride": 4, "d_model": 16,
            "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32, "num_targets": 3,
            "use_cls_token": True}, lambda: {"past_values": reals(16, 2)()}),
)  # fmt: skip
