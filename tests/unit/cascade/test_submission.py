"""What a person may have got wrong in a recipe, and what they are told."""

import json
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cascade.service.submission import JSON_TYPE, TOML_TYPE, parse
from shared.contracts.campaigns import Campaign
from shared.errors import HeadwaterError


@pytest.mark.parametrize(
    ("toml", "field", "hint"),
    [
        ("sede = 1", "sede", "did you mean 'seed'?"),
        ("[rl]\nstep = 1", "rl.step", "did you mean 'rl.steps'?"),
        ("[sft0.lora]\nrnk = 1", "sft0.lora.rnk", "did you mean 'sft0.lora.rank'?"),
        ("[teach.teacher]\nzzzzz = 1", "teach.teacher.zzzzz", "the keys there are kind, url, model, api_key_env."),
        ("[sft0]\nsteps = 0", "sft0.steps", "greater than or equal to 1"),
        ("[rl]\nwatermark_groups = 1", "rl", "'rl': rl needs watermark_groups >= groups_per_step"),
        ("[rl]\nlevel = 'process'\nadvantage = 'grpo'", "rl", "compares whole responses of a question"),
        ("[rl]\nlevel = 'process'\nratio = 'response'", "rl", "rl.ratio = 'response' gives a response one ratio"),
        ("[rl]\nlevel = 'process'\nratio = 'sequence'", "rl", "use ratio = 'action' or 'token'"),
        ("[sft1]\ndistributed = { processes = 3 }", "sft1", "batch_size = 32 rows a step cannot be split evenly"),
        ("[rl]\ngroups_per_step = 3\ndistributed = { processes = 16 }", "rl", "groups_per_step * k = 24 rows a step"),
        ("[sft0]\ndistributed = { fsdp = true }", "sft0.distributed", "over several processes; set 'processes'"),
        (
            "[rl]\noptimizer = 'muon'\ndistributed = { processes = 2, fsdp = true }",
            "rl",
            "'muon' needs whole matrices",
        ),
        ("[rl]\nclip_high = 1.0", "rl.clip_high", "less than 1"),
        ("[rl]\ndual_clip = 1.5", "rl.dual_clip", "greater than or equal to 2"),
        ("[teach.teacher]\nurl = 'host/v1'", "teach.teacher.url", "must be an http(s) address with a host"),
        ("[teach.teacher]\nurl = 'ftp://host/v1'", "teach.teacher.url", "must be an http(s) address with a host"),
        ("[teach.teacher]\nurl = 'https:///v1'", "teach.teacher.url", "must be an http(s) address with a host"),
        ("[teach.teacher]\nurl = 'https://[::1/v1'", "teach.teacher.url", "IPv6"),
    ],
)
def test_a_wrong_key_is_named_by_its_path_with_the_nearest_one(toml: str, field: str, hint: str):
    with pytest.raises(HeadwaterError) as refused:
        parse(f'name = "x"\n{toml}'.encode(), TOML_TYPE)
    assert refused.value.status == 422
    assert refused.value.details[0].field == field
    assert field in refused.value.message
    assert hint in refused.value.message


@pytest.mark.parametrize(
    ("toml", "refused"),
    [
        ("[sft0.lora]\n[sft1.lora]\n[rl.lora]", None),
        ("[sft0.lora]\nrank = 8\n[rl.lora]\nrank = 16", None),
        ("[sft0.lora]\nrank = 8\n[sft1.lora]\nrank = 16", "sft1.lora has rank 16 and alpha 64"),
        ("[sft1.lora]\n[rl.lora]\nalpha = 16", "leave [rl.lora] out to merge it"),
    ],
)
def test_an_adapter_is_trained_on_with_its_own_rank_and_alpha(toml: str, refused: str | None):
    body = f'name = "x"\n{toml}'.encode()
    if refused is None:
        parse(body, TOML_TYPE)
        return
    with pytest.raises(HeadwaterError) as error:
        parse(body, TOML_TYPE)
    assert error.value.details[0].field is None
    assert refused in error.value.message


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        ("{ temperature = 0.7 }", "rl.sampling has temperature 0.7 and top_p 1,"),
        ("{ temperature = 0.0 }", "temperature 0 and"),
        ("{ top_p = 0.9 }", "top_p 0.9"),
        ("{ temperature = 1.0, max_tokens = 64 }", None),
    ],
)
def test_rollouts_are_sampled_from_the_policy_that_is_trained(sampling: str, words: str | None):
    body = f'name = "x"\n[rl]\nsampling = {sampling}\n[probe]\nsampling = {{ temperature = 0.5, top_p = 0.9 }}'.encode()
    if words is None:
        parse(body, TOML_TYPE)
        return
    with pytest.raises(HeadwaterError) as refused:
        parse(body, TOML_TYPE)
    assert refused.value.status == 422
    assert words in refused.value.message


def test_a_stored_campaign_with_other_rollouts_stays_readable():
    recipe = {"rl": {"sampling": {"temperature": 0.7}}}
    stored = {
        "id": uuid4(),
        "name": "x",
        "recipe": recipe,
        "status": "running",
        "stage": "rl",
        "created_at": datetime.now(UTC),
    }
    assert Campaign.model_validate(stored).recipe.rl.sampling.temperature == 0.7


def test_json_paths_are_those_of_the_json():
    with pytest.raises(HeadwaterError, match=r"did you mean 'recipe\.build\.max_rows'") as refused:
        parse(json.dumps({"name": "x", "recipe": {"build": {"max_row": 1}}}).encode(), JSON_TYPE)
    assert refused.value.details[0].field == "recipe.build.max_row"


@pytest.mark.parametrize(
    ("body", "media_type", "status", "words"),
    [
        (b"seed = 1", TOML_TYPE, 422, "'name' is missing"),
        (b"seed = ", TOML_TYPE, 422, "not TOML"),
        (b"{", JSON_TYPE, 422, "not JSON"),
        (b"[1]", JSON_TYPE, 422, "not a JSON object"),
        (b"\xff", JSON_TYPE, 422, "byte 0"),
        (b'name = "x"\n[model]\nbase = "a\\u0000"', TOML_TYPE, 422, "NUL"),
        (b'{"name": "x", "recipe": {"seed": ' + b"[" * 600 + b"]" * 600 + b"}}", JSON_TYPE, 422, "'recipe.seed'"),
        (b'{"name": "x", "recipe": {"seed": ' + b"[" * 9000 + b"]" * 9000 + b"}}", JSON_TYPE, 422, "not JSON"),
        (b'name = "x"\nseed = ' + b"[" * 9000 + b"]" * 9000, TOML_TYPE, 422, "not TOML"),
        (b'name = "x"\nseed = ' + b"9" * 9000, TOML_TYPE, 422, "not TOML"),
        (b'name = "x"\nseed = 2026-01-01', TOML_TYPE, 422, "'seed'"),
        (b'name = "x"\n[rl]\nkl_beta = inf', TOML_TYPE, 422, "'rl.kl_beta'"),
        (b'name = "x"\n' + b"a." * 101 + b"b = 1", TOML_TYPE, 422, "more than 100 dots in line 2"),
        (b"{}", "text/plain", 415, "text/plain"),
        (b" " * (1 << 20) + b"{}", JSON_TYPE, 413, "1,048,578"),
    ],
)
def test_other_mistakes_are_one_sentence(body: bytes, media_type: str, status: int, words: str):
    with pytest.raises(HeadwaterError) as refused:
        parse(body, media_type)
    assert refused.value.status == status
    assert words in refused.value.message


@given(st.binary(max_size=200), st.sampled_from([JSON_TYPE, TOML_TYPE]))
def test_no_bytes_break_it(body: bytes, media_type: str):
    with pytest.raises(HeadwaterError):
        parse(body, media_type)


@pytest.mark.parametrize("media_type", [JSON_TYPE, TOML_TYPE])
def test_of_thousands_of_wrong_keys_the_first_hundred_are_named(media_type: str):
    keys = [f"key_{number}" for number in range(5000)]
    recipe = dict.fromkeys(keys, 1)
    toml = 'name = "x"\n' + "\n".join(f"{key} = 1" for key in keys)
    body = json.dumps({"name": "x", "recipe": recipe}) if media_type == JSON_TYPE else toml
    with pytest.raises(HeadwaterError) as refused:
        parse(body.encode(), media_type)
    assert refused.value.status == 422
    assert len(refused.value.details) == 100
    assert "key_0'" in refused.value.message


def test_toml_and_json_mean_the_same():
    toml = parse(b'name = "x"\nseed = 3\n[rl]\nlevel = "process"', TOML_TYPE)
    assert toml == parse(b'{"name": "x", "recipe": {"seed": 3, "rl": {"level": "process"}}}', JSON_TYPE)
