"""A given output, scored step by step."""

from __future__ import annotations

import numpy as np

from regard.engine.request import FinishReason
from regard.engine.search.options import scoring
from regard.engine.search.shortlist import StepScores
from regard.engine.search.strategy import search_of
from regard.manifest import GenerationSpec

VOCABULARY = 7
SPEC = GenerationSpec(
    start_token_id=1,
    eos_token_ids=(0,),
    pad_token_id=1,
    suppressed_token_ids=(1, 4),
    forced_bos_token_id=3,
    forced_eos_token_id=0,
    max_target_tokens=9,
    vocabulary_size=VOCABULARY,
)


def test_every_token_has_the_models_own_log_probability() -> None:
    """Whatever is likeliest, suppressed, forced or the end: the tokens are those given, each with its log-softmax."""
    target = (4, 0, 1, 6, 0)
    search, random, expected = search_of(scoring(target), SPEC, [1]), np.random.default_rng(2), []
    for token_id in target:
        assert not search.done
        logits = random.normal(size=(1, VOCABULARY)).astype(np.float32) * 4
        log_sum_exp = np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True)).astype(np.float32)
        best = logits.argmax(axis=1)[:, None]
        search.advance(StepScores(best, np.take_along_axis(logits, best, axis=1), log_sum_exp, logits))
        expected.append(float(logits[0, token_id] - log_sum_exp[0, 0]))
    (result,) = search.results
    assert search.done and result.finish_reason is FinishReason.END_OF_SENTENCE
    assert tuple(result.token_ids) == target
    np.testing.assert_allclose(result.log_probabilities, expected, rtol=1e-6)
    assert result.score == sum(result.log_probabilities)


def test_scoring_takes_one_row_and_as_many_steps_as_there_are_tokens() -> None:
    """The scheduler foresees exactly that."""
    options = scoring([5, 6, 0])
    assert (options.width, options.min_new_tokens, options.max_new_tokens) == (1, 3, 3)
