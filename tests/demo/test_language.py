"""The stand-in for a text encoder: fixed vectors, one a word."""

from __future__ import annotations

import numpy as np

from demo.language import INSTRUCTION, embed


def test_a_word_is_the_same_vector_wherever_it_stands() -> None:
    tokens = embed("drop The ring over the puck", 6, 32)
    assert tokens.shape == (1, 6, 32)
    assert tokens.dtype == np.float32
    np.testing.assert_array_equal(tokens[0, 1], tokens[0, 4])
    np.testing.assert_array_equal(tokens, embed(INSTRUCTION, 6, 32))
    assert len(np.unique(tokens[0], axis=0)) == 5


def test_surplus_words_are_dropped_and_missing_ones_are_zero() -> None:
    np.testing.assert_array_equal(embed("drop the ring", 2, 8), embed("drop the puck", 2, 8))
    assert not embed("drop", 3, 8)[0, 1:].any()
    assert embed("drop", 3, 8)[0, 0].any()


def test_the_vectors_are_those_that_the_policy_was_trained_with() -> None:
    puck = embed("puck", 1, 3)[0, 0]
    np.testing.assert_allclose(puck, [-0.12783371, -0.9844962, -0.49695322], rtol=1e-6)
