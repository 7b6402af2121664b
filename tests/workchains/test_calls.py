import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiida_oodal.workchains.calls import Call, Stage


@given(
    st.sampled_from([Stage.SELECT, Stage.LABEL, Stage.TRAIN]),
    st.integers(0, 10**6),
)
def test_labels_lead_back_to_their_calls(stage, number):
    call = Call(stage, number)
    assert Call.parse(str(call)) == call


@given(st.integers(0, 10**6), st.from_regex(r'[A-Za-z][A-Za-z0-9_]*', fullmatch=True))
def test_walkers_may_have_any_name(number, walker):
    call = Call(Stage.EXPLORE, number, walker)
    assert Call.parse(str(call)) == call


@pytest.mark.parametrize('label', ['md', 'explore_1', 'label_1_w1', 'train_', 'select_x', 'exploring_1_w1', ''])
def test_other_calls_are_none_of_a_campaign(label):
    assert Call.parse(label) is None
