"""Gemma-2 beside transformers' own torch class: the same logits, the same greedy answer, the same prompt."""

import json
import shutil

import numpy as np
import pytest

from lab import chat, models, tiny_gemma, training
from lab.device import mx
from lab.hub import GEMMA_TINY

pytestmark = pytest.mark.reference
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

QUESTION = [{"role": "user", "content": "대한민국의 수도는 어디야?"}]


def by_torch(folder):
    """transformers' model, float32; "eager" attention alone caps the scores."""
    return transformers.Gemma2ForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    """A random Gemma-2 whose every part matters: caps that bite, norms away from 0, heads wider than the model."""
    folder = tmp_path_factory.mktemp("gemma") / "strange"
    shutil.copytree(GEMMA_TINY, folder)
    for path in folder.glob("model*"):
        path.unlink()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"head_dim": 48, "query_pre_attn_scalar": 20, "num_key_value_heads": 3, "num_hidden_layers": 3}
    config |= {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.5, "rope_theta": 500.0}
    torch.manual_seed(0)
    model = transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**config)).float()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, 0.2 if "norm" in name else 0.0, 0.3 if "norm" in name else 0.08)
    model.save_pretrained(folder)
    # transformers 5 moves rope_theta into rope_parameters, where mlx-lm's gemma2 does not look
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(params=["embedded", "strange"])
def folder(request):
    return GEMMA_TINY if request.param == "embedded" else request.getfixturevalue("strange")


def test_logits_are_those_of_torch(folder):
    tokens = np.random.default_rng(0).integers(0, tiny_gemma.VOCABULARY, (2, 120))
    with torch.no_grad():
        wanted = by_torch(folder)(torch.tensor(tokens)).logits.numpy()
    model, _ = models.load(folder)
    inputs = mx.array(tokens)
    stock = np.array(model(inputs))
    ours = np.array(training.logits_at(model, inputs, mx.arange(inputs.size))).reshape(stock.shape)
    for found in (stock, ours):
        assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_the_prompt_is_what_transformers_makes_of_the_template():
    theirs = transformers.AutoTokenizer.from_pretrained(GEMMA_TINY)
    ids = theirs.apply_chat_template(QUESTION, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert chat.prompt_tokens(models.load_tokenizer(GEMMA_TINY), QUESTION) == list(ids)


def test_the_greedy_answer_is_that_of_torch():
    theirs = transformers.AutoTokenizer.from_pretrained(GEMMA_TINY)
    prompt = theirs.apply_chat_template(
        QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        made = by_torch(GEMMA_TINY).generate(**prompt, max_new_tokens=40, do_sample=False)
    wanted = theirs.decode(made[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    model, tokenizer = models.load(GEMMA_TINY)
    assert models.answer(model, tokenizer, [QUESTION], 40) == [wanted]
