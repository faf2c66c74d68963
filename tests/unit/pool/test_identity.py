"""Identity by content."""

from uuid import uuid4

from services.pool.identity import question_id, text_hash
from shared.contracts.questions import QuestionIn, QuestionKind, Split


def test_what_a_reader_cannot_tell_apart_is_the_same():
    campaign = uuid4()
    one = QuestionIn(question="caf\u00e9  is\n1", answer="1")
    same = QuestionIn(question=" cafe\u0301 is 1 ", answer="2", source="elsewhere")
    assert question_id(campaign, one) == question_id(campaign, same)
    assert text_hash(one.question) == text_hash(same.question)


def test_kind_split_and_campaign_make_another_question_but_not_another_text():
    campaign = uuid4()
    one = QuestionIn(question="q", answer="1")
    others = [
        question_id(campaign, one.model_copy(update={"kind": QuestionKind.EXACT})),
        question_id(campaign, one.model_copy(update={"split": Split.EVAL})),
        question_id(campaign, one.model_copy(update={"question": "Q"})),
        question_id(uuid4(), one),
    ]
    assert len({question_id(campaign, one), *others}) == 5
