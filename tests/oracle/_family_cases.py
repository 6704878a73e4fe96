"""Small configurations of every family, with the variants that its models have.

Each is (name, mlx-lm's module, config, quantization). The first of a family is
its plain form.
"""

VOCABULARY = 311

BASE = dict(
    vocab_size=VOCABULARY, hidden_size=96, num_hidden_layers=3, intermediate_size=160,
    num_attention_heads=6, num_key_value_heads=2, head_dim=32, rms_norm_eps=1e-5,
    max_position_embeddings=4096, rope_theta=10000.0, tie_word_embeddings=True,
)
LLAMA3 = dict(
    rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=256,
)
GEMMA4_ROPE = dict(
    full_attention=dict(rope_type="proportional", rope_theta=1e6, partial_rotary_factor=0.25),
    sliding_attention=dict(rope_type="default", rope_theta=1e4))


# Of 16 frequencies, as LongRoPE's lists are of half a head of 32.
LONG = [1.0 + 0.4 * i for i in range(16)]
SHORT = [1.0 + 0.05 * i for i in range(16)]


def without(config, *keys):
    return {k: v for k, v in config.items() if k not in keys}


def first_cases():
    llama = dict(BASE, model_type="llama", hidden_act="silu")
    yield "llama, tied, GQA", "llama", llama, None
    no_head_dim = without(llama, "head_dim")
    yield "llama, untied, MQA, H / heads", "llama", dict(
        no_head_dim, tie_word_embeddings=False, num_key_value_heads=1), None
    yield "llama, one KV head per head, linear rope", "llama", dict(
        llama, num_key_value_heads=6, rope_scaling=dict(type="linear", factor=4.0)), None
    yield "llama, llama3 rope", "llama", dict(llama, rope_scaling=LLAMA3, rope_theta=5e5), None
    yield "mistral", "llama", dict(llama, model_type="mistral", tie_word_embeddings=False), None
    yield "llama, sliding window", "llama", dict(
        llama, sliding_window=50, layer_types=["sliding_attention", "full_attention", "sliding_attention"]), None
    wide = dict(llama, hidden_size=128, intermediate_size=192)
    yield "llama, 4 bits, groups of 32", "llama", wide, dict(bits=4, group_size=32)
    yield "llama, 4 bits, groups of 64", "llama", dict(
        wide, tie_word_embeddings=False), dict(bits=4, group_size=64)
    qwen3 = dict(BASE, model_type="qwen3", hidden_act="silu")
    yield "qwen3, tied", "qwen3", qwen3, None
    yield "qwen3, untied, nested rope", "qwen3", dict(
        without(qwen3, "rope_theta"), tie_word_embeddings=False,
        rope_parameters=dict(rope_type="default", rope_theta=1e6)), None
    yield "qwen3, 4 bits", "qwen3", dict(qwen3, hidden_size=128), dict(bits=4, group_size=32)
    gemma3 = dict(
        BASE, model_type="gemma3_text", hidden_activation="gelu_pytorch_tanh", query_pre_attn_scalar=24,
        num_hidden_layers=6, sliding_window=32, sliding_window_pattern=3, rope_theta=1e6,
        rope_local_base_freq=1e4)
    yield "gemma3_text, tied", "gemma3_text", gemma3, None
    yield "gemma3_text, untied, window of 65, linear rope, MQA", "gemma3_text", dict(
        gemma3, tie_word_embeddings=False, sliding_window=65, num_key_value_heads=1,
        rope_scaling=dict(rope_type="linear", factor=8.0)), None
    yield "gemma3_text, 4 bits", "gemma3_text", dict(
        gemma3, hidden_size=128, intermediate_size=192), dict(bits=4, group_size=64)
    gemma4 = dict(
        BASE, model_type="gemma4_text", hidden_activation="gelu_pytorch_tanh", num_hidden_layers=7,
        layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention",
                     "sliding_attention", "full_attention", "sliding_attention"],
        sliding_window=40, global_head_dim=64, num_kv_shared_layers=3, use_double_wide_mlp=True,
        hidden_size_per_layer_input=32, vocab_size_per_layer_input=VOCABULARY, final_logit_softcapping=30.0,
        attention_k_eq_v=False, enable_moe_block=False, rope_parameters=GEMMA4_ROPE)
    yield "gemma4_text, tied", "gemma4_text", gemma4, None
    yield "gemma4_text, untied, nothing shared, no inputs per layer, K as V", "gemma4_text", dict(
        gemma4, tie_word_embeddings=False, num_kv_shared_layers=0, hidden_size_per_layer_input=0,
        attention_k_eq_v=True, num_global_key_value_heads=1, final_logit_softcapping=2.0), None
    yield "gemma4_text, 4 bits", "gemma4_text", dict(
        gemma4, hidden_size=128, intermediate_size=192, hidden_size_per_layer_input=64), dict(bits=4, group_size=64)


def llama_variants():
    llama = dict(BASE, model_type="llama", hidden_act="silu")
    yield "llama, biases everywhere", "llama", dict(llama, attention_bias=True, mlp_bias=True), None
    yield "llama, biases, 4 bits", "llama", dict(
        llama, hidden_size=128, intermediate_size=192, attention_bias=True, mlp_bias=True), dict(
            bits=4, group_size=64)
    yarn = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)
    yield "llama, yarn", "llama", dict(llama, rope_scaling=yarn), None
    yield "llama, yarn, all its keys", "llama", dict(llama, rope_scaling=dict(
        yarn, beta_fast=16.0, beta_slow=2.0, mscale=0.8, mscale_all_dim=0.5)), None
    yield "llama, yarn, mscale alone", "llama", dict(llama, rope_scaling=dict(yarn, mscale=0.7)), None
    yield "llama, longrope", "llama", dict(llama, rope_scaling=dict(
        rope_type="longrope", long_factor=LONG, short_factor=SHORT, original_max_position_embeddings=64)), None
    yield "llama, dynamic NTK within its positions", "llama", dict(
        llama, rope_scaling=dict(type="dynamic", factor=2.0)), None
    yield "llama, rope of neighbours", "llama", dict(llama, rope_traditional=True), None


def dense_cases():
    """Qwen2, Phi-3, SmolLM3, Granite, OLMo, Gemma 2, GLM-4, Command R7B, Mistral 3."""
    qwen2 = dict(without(BASE, "head_dim"), model_type="qwen2", hidden_act="silu", hidden_size=192)
    yield "qwen2, tied", "qwen2", qwen2, None
    yield "qwen2, untied, yarn", "qwen2", dict(qwen2, tie_word_embeddings=False, rope_scaling=dict(
        type="yarn", factor=4.0, original_max_position_embeddings=64)), None
    yield "qwen2, 4 bits", "qwen2", dict(qwen2, hidden_size=192), dict(bits=4, group_size=32)
    phi3 = dict(without(BASE, "head_dim"), model_type="phi3", hidden_act="silu", hidden_size=192,
                original_max_position_embeddings=64, tie_word_embeddings=False)
    yield "phi3, untied", "phi3", phi3, None
    yield "phi3, tied, longrope on three quarters of a head", "phi3", dict(
        phi3, tie_word_embeddings=True, partial_rotary_factor=0.75, rope_scaling=dict(
            type="longrope", long_factor=LONG[:12], short_factor=SHORT[:12])), None
    yield "phi3, su, one KV head per head", "phi3", dict(phi3, num_key_value_heads=6, rope_scaling=dict(
        type="su", long_factor=LONG, short_factor=SHORT)), None
    yield "phi3, 4 bits", "phi3", dict(phi3), dict(bits=4, group_size=32)
    smollm3 = dict(BASE, model_type="smollm3", hidden_act="silu", num_hidden_layers=5)
    yield "smollm3, tied", "smollm3", smollm3, None
    yield "smollm3, untied, named layers", "smollm3", dict(
        smollm3, tie_word_embeddings=False, no_rope_layers=[1, 0, 1, 1, 0]), None
    granite = dict(
        without(BASE, "head_dim"), model_type="granite", hidden_act="silu", hidden_size=192, attention_bias=False,
        mlp_bias=False, logits_scaling=2.0, attention_multiplier=0.2, embedding_multiplier=3.0,
        residual_multiplier=0.4)
    yield "granite, tied", "granite", granite, None
    yield "granite, untied, biases", "granite", dict(
        granite, tie_word_embeddings=False, attention_bias=True, mlp_bias=True, logits_scaling=0.5), None
    olmo2 = dict(BASE, model_type="olmo2", hidden_act="silu", tie_word_embeddings=False)
    yield "olmo2, untied", "olmo2", olmo2, None
    yield "olmo2, tied, biases, MQA", "olmo2", dict(
        olmo2, tie_word_embeddings=True, attention_bias=True, num_key_value_heads=1), None
    olmo3 = dict(olmo2, model_type="olmo3", sliding_window=50, num_hidden_layers=5)
    yield "olmo3, untied", "olmo3", olmo3, None
    yield "olmo3, yarn in the layers that see all", "olmo3", dict(
        olmo3, layer_types=["sliding_attention", "full_attention"] * 2 + ["full_attention"], rope_scaling=dict(
            rope_type="yarn", factor=8.0, original_max_position_embeddings=64, attention_factor=1.2079441541679836,
            beta_fast=32.0, beta_slow=1.0)), None
    gemma2 = dict(
        BASE, model_type="gemma2", hidden_activation="gelu_pytorch_tanh", query_pre_attn_scalar=24,
        attn_logit_softcapping=5.0, final_logit_softcapping=3.0, sliding_window=512)
    yield "gemma2, tied", "gemma2", gemma2, None
    yield "gemma2, default caps, MQA", "gemma2", dict(
        without(gemma2, "attn_logit_softcapping", "final_logit_softcapping"), num_key_value_heads=1), None
    yield "gemma2, 4 bits", "gemma2", dict(gemma2, hidden_size=128, intermediate_size=192), dict(
        bits=4, group_size=64)
    glm4 = dict(
        BASE, model_type="glm4", hidden_act="silu", tie_word_embeddings=False, attention_bias=True,
        partial_rotary_factor=0.5)
    yield "glm4, untied", "glm4", glm4, None
    yield "glm4, no biases, whole heads", "glm4", dict(glm4, attention_bias=False, partial_rotary_factor=1.0), None
    yield "glm4, 4 bits", "glm4", dict(glm4, hidden_size=128, intermediate_size=192), dict(bits=4, group_size=64)
    cohere2 = dict(
        without(BASE, "rms_norm_eps"), model_type="cohere2", hidden_act="silu", hidden_size=192, layer_norm_eps=1e-5,
        logit_scale=0.5, sliding_window=50, sliding_window_pattern=3, num_hidden_layers=5, rope_theta=5e4)
    yield "cohere2, tied", "cohere2", cohere2, None
    yield "cohere2, biases of norms and attention", "cohere2", dict(
        cohere2, attention_bias=True, layer_norm_bias=True, sliding_window=512), None
    mistral_rope = dict(
        rope_type="yarn", type="yarn", rope_theta=1e6, factor=16.0, original_max_position_embeddings=64, beta_fast=32.0,
        beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.1)
    ministral3 = dict(
        without(BASE, "rope_theta"), model_type="ministral3", hidden_act="silu", rope_parameters=mistral_rope)
    yield "ministral3, tied", "ministral3", ministral3, None
    yield "ministral3, untied, windows", "ministral3", dict(
        ministral3, tie_word_embeddings=False, sliding_window=50,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"]), None
    yield "mistral3 of ministral3", "mistral3", dict(
        model_type="mistral3", text_config=dict(ministral3, tie_word_embeddings=True)), None
    yield "mistral3 of mistral, untied", "mistral3", dict(model_type="mistral3", text_config=dict(
        BASE, model_type="mistral", hidden_act="silu", tie_word_embeddings=False)), None


def all_cases():
    yield from first_cases()
    yield from llama_variants()
    yield from dense_cases()
