"""CE and KL against a brute-force splice: transformers alone, a hand-written hook, one context at a
time, and the autoencoder in float64 numpy from its files."""

import json

import by_files
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from cpsae.evaluation import through_model
from cpsae.stages.evaluate import evaluate

CASES = [
    ("gpt2", "resid_post", False),
    ("gpt2", "resid_pre", True),
    ("llama", "resid_post", True),
    ("llama", "attn_out", False),
    ("gemma2", "resid_post", False),
    ("gemma2", "mlp_out", True),
    ("opt", "mlp_out", False),
    ("gpt_neox", "attn_out", False),
]


def module_of(model, kind, point):
    """The module of block 1 whose output (resid_pre: input) is at this point."""
    if kind == "gpt2":
        block = model.transformer.h[1]
    elif kind == "gpt_neox":
        block = model.gpt_neox.layers[1]
    else:
        block = (model.model.decoder if kind == "opt" else model.model).layers[1]
    parts = {
        ("llama", "attn_out"): "self_attn",
        ("gemma2", "mlp_out"): "post_feedforward_layernorm",
        ("opt", "mlp_out"): "fc2",
        ("gpt_neox", "attn_out"): "attention",
    }
    return getattr(block, parts[kind, point]) if (kind, point) in parts else block


class BruteForce:
    """A whole model of transformers, and what is put into it."""

    def __init__(self, folder, kind, point):
        self.model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
        self.model.eval()
        self.module, self.before = module_of(self.model, kind, point), point == "resid_pre"

    def log_probabilities(self, tokens, change=None):
        """(T, V) float64, of tokens (T,). change: from rows (T, d) to rows."""

        def changed(given):
            rows = change(given.reshape(-1, given.shape[-1]).double().numpy())
            return torch.from_numpy(rows).to(given.dtype).reshape(given.shape)

        def hook(_module, inputs, output=None):
            if self.before:
                return (changed(inputs[0]), *inputs[1:])
            if isinstance(output, tuple):
                return (changed(output[0]), *output[1:])
            return changed(output)

        register = "register_forward_pre_hook" if self.before else "register_forward_hook"
        handle = getattr(self.module, register)(hook) if change else None
        with torch.no_grad():
            logits = self.model(torch.from_numpy(tokens)[None].long(), use_cache=False).logits[0]
        if handle:
            handle.remove()
        return logits.float().log_softmax(-1).double().numpy()

    def figures(self, sae, contexts, special, first):
        """Means over all contexts (n, T): ours, and SAEBench's."""
        ours, theirs = [], []
        for tokens in contexts:
            text = ~np.isin(tokens, special)
            mine = text & (np.arange(len(tokens)) >= first)
            clean = self.log_probabilities(tokens)
            by_sae = self.log_probabilities(tokens, spliced(sae, mine))
            zero = self.log_probabilities(tokens, spliced(np.zeros_like, mine))
            predicting = mine & (np.arange(len(tokens)) < len(tokens) - 1)
            ours += measured(tokens, predicting, clean, by_sae, zero)
            by_sae = self.log_probabilities(tokens, spliced(sae, text))
            zero = self.log_probabilities(tokens, np.zeros_like)
            theirs += measured(tokens, text, clean, by_sae, zero)
        return ours, theirs


def spliced(change, where):
    return lambda x: np.where(where[:, None], change(x), x)


def measured(tokens, counted, clean, by_sae, zero):
    """CE of three, KL of two, at each counted position; NaN for CE where nothing follows."""
    found = []
    for t in np.flatnonzero(counted):
        ce = [np.nan] * 3
        if t + 1 < len(tokens):
            ce = [-p[t, tokens[t + 1]] for p in (clean, by_sae, zero)]
        kl = [(np.exp(clean[t]) * (clean[t] - p[t])).sum() for p in (by_sae, zero)]
        found.append([*ce, *kl])
    return found


def scores(positions):
    clean, by_sae, zero, kl_sae, kl_zero = np.nanmean(positions, axis=0)
    return {
        "ce_loss_clean": clean,
        "ce_loss_sae": by_sae,
        "ce_loss_zero": zero,
        "kl_sae": kl_sae,
        "kl_zero": kl_zero,
        "ce_loss_score": (zero - by_sae) / (zero - clean),
        "kl_score": (kl_zero - kl_sae) / kl_zero,
    }


THEIR_NAMES = {
    "ce_loss_clean": "ce_loss_without_sae",
    "ce_loss_sae": "ce_loss_with_sae",
    "ce_loss_zero": "ce_loss_with_ablation",
    "kl_sae": "kl_div_with_sae",
    "kl_zero": "kl_div_with_ablation",
    "ce_loss_score": "ce_loss_score",
    "kl_score": "kl_div_score",
}


def written(made, **options):
    evaluate(made.run, device="cpu", model="store", **options)
    return json.loads((made.run / "evaluation.json").read_text())


def check(found, ours, theirs):
    expected = scores(ours)
    expected |= {f"saebench/{THEIR_NAMES[k]}": v for k, v in scores(theirs).items()}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-3, abs=2e-5), name


@pytest.mark.parametrize(("kind", "point", "keep_bos"), CASES)
def test_the_brute_force_splice_gives_the_same(trained, kind, point, keep_bos):
    made = trained(kind, hook=point, keep_bos=keep_bos)
    contexts, rows = by_files.held_out_tokens(made.store), by_files.held_out_rows(made.store)
    assert (contexts[:, 0] == 2).all() and (contexts[:, 1:-1] == 1).any()  # EOS in the middle
    over = np.sqrt((rows**2).sum(1)) > by_files.bound(made.store, 1.05)
    assert over.sum() > 20  # spliced all the same
    sae = by_files.Autoencoder(made.run)
    ours, theirs = BruteForce(made.model, kind, point).figures(sae, contexts, [0, 1, 2], 0)
    found = written(made)
    check(found, ours, theirs)
    assert found["special_tokens"] == {"ids": [0, 1, 2], "from": "tokenizer"}
    assert found["model"]["positions"] == len(ours)
    assert found["model"]["contexts"] == len(contexts)
    assert found["kl_zero"] > found["kl_sae"] > 3e-3  # it does something


@pytest.mark.parametrize("keep_bos", [False, True])
def test_a_first_position_that_is_no_special_token(trained, keep_bos):
    """Without BOS position 0 is a token like others: ours where the store has rows of it, and
    always SAEBench's."""
    made = trained("gpt2", bos=False, keep_bos=keep_bos)
    contexts = by_files.held_out_tokens(made.store)
    assert not np.isin(contexts[:, 0], [0, 1, 2]).all()
    sae, model = by_files.Autoencoder(made.run), BruteForce(made.model, "gpt2", "resid_post")
    found = written(made)
    assert found["special_tokens"]["ids"] == [0, 1]
    check(found, *model.figures(sae, contexts, [0, 1], 0 if keep_bos else 1))


def test_intervals_are_those_of_contexts_drawn_again(trained):
    made = trained("llama", hook="resid_post", keep_bos=True)
    contexts = by_files.held_out_tokens(made.store)[:6]
    sae, model = by_files.Autoencoder(made.run), BruteForce(made.model, "llama", "resid_post")
    of_each = [np.array(model.figures(sae, [c], [0, 1, 2], 0)[0]) for c in contexts]
    random = np.random.default_rng(0)
    drawn = [
        scores(np.concatenate([of_each[i] for i in random.integers(6, size=6)]))
        for _ in range(1000)
    ]
    found = written(made, contexts=6)
    assert found["evaluation_contexts"] == found["model"]["contexts"] == 6
    for name in scores(of_each[0]):
        expected = [np.percentile([values[name] for values in drawn], q) for q in (2.5, 97.5)]
        assert found[f"{name}_ci"] == pytest.approx(expected, rel=1e-3, abs=1e-4), name


def test_batches_and_pieces_do_not_matter(trained, monkeypatch):
    made = trained("llama", hook="resid_post", keep_bos=True)
    whole = written(made)
    monkeypatch.setattr(through_model, "_LOGITS", {"cpu": 1})
    monkeypatch.setattr(through_model, "_LOGITS_IN_FLOAT32", 1000)
    one_by_one = written(made)
    for name in ("ce_loss_clean", "ce_loss_sae", "ce_loss_zero", "kl_sae", "kl_zero"):
        assert one_by_one[name] == pytest.approx(whole[name], rel=1e-5), name
        assert one_by_one[f"{name}_ci"] == pytest.approx(whole[f"{name}_ci"], rel=1e-5), name


def test_a_perfect_reconstruction_loses_nothing(trained, monkeypatch):
    made = trained("llama", hook="resid_post", keep_bos=True)
    monkeypatch.setattr("cpsae.sae.autoencoder.SparseAutoencoder.forward", lambda _self, x: x)
    found = written(made)
    assert found["ce_loss_score"] == found["kl_score"] == 1
    assert found["ce_loss_score_ci"] == found["kl_score_ci"] == [1, 1]
    assert (found["ce_loss_sae"], found["kl_sae"]) == (found["ce_loss_clean"], 0)


def test_in_bfloat16(trained):
    made = trained("llama", hook="resid_post", dtype="bfloat16")
    found = written(made)
    assert found["model"]["dtype"] == "bfloat16"
    in_float32 = written(made, dtype="float32")
    assert in_float32["model"]["dtype"] == "float32"
    assert found["ce_loss_clean"] != in_float32["ce_loss_clean"]
    for name in ("ce_loss_clean", "ce_loss_sae", "kl_sae"):
        assert found[name] == pytest.approx(in_float32[name], rel=0.05), name
