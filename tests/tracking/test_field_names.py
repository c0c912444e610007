"""Figures under the field's names; hyper-parameters without what is this machine's."""

from cpsae.tracking.field_names import hyper_parameters, of_step, of_summary

LINE = {
    "step": 10,
    "loss": 0.5,
    "mse": 0.25,
    "aux": 0.125,
    "penalty": 2,
    "l0": 20.0,
    "l1": 1.5,
    "n_enabled": 8,
    "temperature": None,
    "lr": 1e-3,
}


def test_a_line() -> None:
    assert of_step(LINE, 64) == {
        "losses/overall_loss": 0.5,
        "losses/mse_loss": 0.25,
        "losses/auxiliary_reconstruction_loss": 0.125,
        "losses/penalty": 2.0,
        "metrics/l0": 20.0,
        "metrics/l1": 1.5,
        "details/n_enabled": 8.0,
        "details/current_learning_rate": 1e-3,
        "details/n_training_samples": 640.0,
    }


def test_a_summary() -> None:
    found = of_summary({"explained_variance": 0.5, "dead": 3, "cosine": None})
    assert found == {
        "metrics/explained_variance": 0.5,
        "evaluation/explained_variance": 0.5,
        "evaluation/dead": 3.0,
    }


def test_hyper_parameters() -> None:
    config = {
        "preset": "topk",
        "settings": {"k": 8, "steps": None, "fast": True, "deep": {"er": 1.5}},
        "store": {
            "path": "/home/ada/acts.zarr",
            "identity": "ab",
            "manifest": {
                "d": 24,
                "model": {"id": "/home/ada/models/small.gguf"},
                "dataset": {"id": "monology/pile"},
                "hook": {"layer": 19, "name": "resid_post"},
            },
        },
        "software": {"torch": "2.13"},
    }
    found = hyper_parameters(config)
    assert found == {
        "k": 8,
        "fast": True,
        "deep.er": 1.5,
        "preset": "topk",
        "store/identity": "ab",
        "store/d": 24,
        "store/model": "small.gguf",
        "store/dataset": "monology/pile",
        "store/layer": 19,
        "store/hook": "resid_post",
        "software/torch": "2.13",
    }
    assert "ada" not in str(found)
    assert hyper_parameters({}) == {}
