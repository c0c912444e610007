"""Two steps that should be one."""

import torch


def assert_same_loss_and_gradients(found, expected, **tolerance):
    """Values of the loss and each of its parts, and gradients, contiguous and without a history."""
    torch.testing.assert_close(found.loss.total, expected.loss.total, **tolerance)
    assert found.loss.parts.keys() == expected.loss.parts.keys()
    for name, part in expected.loss.parts.items():
        torch.testing.assert_close(found.loss.parts[name], part, **tolerance)
    assert found.gradients.keys() == expected.gradients.keys()
    for name, gradient in expected.gradients.items():
        torch.testing.assert_close(found.gradients[name], gradient, msg=name, **tolerance)
        assert found.gradients[name].is_contiguous() and not found.gradients[name].requires_grad
