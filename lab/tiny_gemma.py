"""The embedded model in Gemma-2's shape: gemma2 architecture, a tokenizer with byte fallback, its chat template, files."""

import json
import shutil
from collections import Counter
from pathlib import Path

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)
from mlx.utils import tree_flatten, tree_map_with_path
from mlx_lm.models import gemma2
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lab import cpu_pointwise, pretraining, training

VOCABULARY = 2560
RARE = 6  # a character that stands in the world fewer times is spelt in bytes, so that bytes are learnt, too
PAD, EOS, BOS, UNKNOWN = "<pad>", "<eos>", "<bos>", "<unk>"
START_OF_TURN, END_OF_TURN = "<start_of_turn>", "<end_of_turn>"
SPECIAL_TOKENS = (PAD, EOS, BOS, UNKNOWN, START_OF_TURN, END_OF_TURN)  # the first four have Gemma's ids
END_OF_TEXT = EOS
ROLES = ("user", "model")  # the template writes them in every turn: one token each
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))


def text_config():
    """The shape: Gemma-2's kind of everything (GQA, tied embeddings, capped scores and logits), 1.8M parameters."""
    return {
        "model_type": "gemma2",
        "architectures": ["Gemma2ForCausalLM"],
        "hidden_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "intermediate_size": 384,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
        "sliding_window": 2048,  # as long as the context: mlx-lm's gemma2 has no sliding window
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "query_pre_attn_scalar": 32,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "tie_word_embeddings": True,
    }


def template_of(data):
    """The file of the chat template."""
    return Path(__file__).with_name("templates") / "gemma_chat.jinja"


def train_tokenizer(rows, template):
    """A BPE tokenizer of VOCABULARY tokens as Gemma's: blanks as "\u2581", what it does not know spelt in bytes."""
    texts = pretraining.texts(rows)
    counts = Counter("".join(texts).replace(" ", "\u2581"))
    alphabet = [character for character, count in counts.items() if count >= RARE]
    words = Regex(r"\u2581?\p{Hangul}+|\u2581?[A-Za-z_]+|\d|\u2581?[^\s\w\u2581]+|\n+|\u2581+")
    blanks, split = normalizers.Replace(" ", "\u2581"), pre_tokenizers.Split(words, "isolated")
    learnt = Tokenizer(models.BPE())
    learnt.normalizer, learnt.pre_tokenizer = blanks, split
    size = VOCABULARY - len(SPECIAL_TOKENS) - len(BYTES)
    trainer = trainers.BpeTrainer(vocab_size=size, limit_alphabet=len(alphabet), show_progress=False)
    learnt.train_from_iterator(texts + list(ROLES) * len(rows), trainer)
    pieces = sorted(learnt.get_vocab().items(), key=lambda item: item[1])
    vocabulary = {
        piece: place for place, piece in enumerate((*SPECIAL_TOKENS, *BYTES, *(name for name, _ in pieces)))
    }
    merges = [tuple(pair) for pair in json.loads(learnt.to_str())["model"]["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token=UNKNOWN, byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer, tokenizer.pre_tokenizer = blanks, split
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    begin = (BOS, vocabulary[BOS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[begin]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        additional_special_tokens=[START_OF_TURN, END_OF_TURN],
        clean_up_tokenization_spaces=False,
        model_max_length=text_config()["max_position_embeddings"],
    )
    fast.chat_template = template.read_text(encoding="utf-8")
    return TokenizerWrapper(fast, eos_token_ids=[vocabulary[EOS], vocabulary[END_OF_TURN]])


def new_model():
    """The model, its weights random; a norm's weight is what it adds to 1, so it begins at 0."""
    model = gemma2.Model(gemma2.ModelArgs.from_dict(text_config()))
    model.update(
        tree_map_with_path(
            lambda name, value: mx.zeros_like(value) if "norm" in name else value, model.parameters()
        )
    )
    return model


def losses(model, inputs, targets):
    """-log p of each target in nats, (B, T)."""
    logits = training.logits_at(model, inputs, mx.arange(inputs.size))
    return cpu_pointwise.cross_entropy(logits, targets.reshape(-1)).reshape(targets.shape)


def save_checkpoint(folder, model, tokenizer, template, seed):
    """Write the checkpoint's files, in Gemma-2's layout, into `folder`, which is made where it is missing.

    There is nothing random in them, so `seed` is not used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pretraining.save_shards(folder, dict(tree_flatten(model.parameters())))
    tokenizer.save_pretrained(str(folder))
    shutil.copyfile(template, folder / "chat_template.jinja")
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    ends = {"bos_token_id": ids[BOS], "eos_token_id": [ids[EOS], ids[END_OF_TURN]], "pad_token_id": ids[PAD]}
    pretraining.write_json(folder / "config.json", {**text_config(), **ends, "torch_dtype": "bfloat16"})
    pretraining.write_json(folder / "generation_config.json", {**ends, "do_sample": False})
