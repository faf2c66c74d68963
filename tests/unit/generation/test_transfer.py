"""The process that sends weights: what it is told, and what becomes of one that fails, hangs or sees no GPU."""

import sys
from pathlib import Path

import pytest

from services.generation.client.engine import EngineClient
from services.generation.client.engine_errors import EngineDownError
from services.generation.client.transfer import Transfer, TransferFailedError
from services.generation.sender import NO_GPU


def sender(source: str) -> Transfer:
    return Transfer("10.0.0.7", 4, (sys.executable, "-c", source))


async def test_the_sender_is_told_whom_to_meet(tmp_path: Path):
    told = tmp_path / "told"
    await sender(f"import sys; open({str(told)!r}, 'w').write(' '.join(sys.argv[1:]))").send(
        "http://e:8500", tmp_path, 30.0
    )
    words = told.read_text().split()
    assert words[0] == str(tmp_path)
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert int(options.pop("--master-port")) > 0
    assert options == {
        "--engine": "http://e:8500",
        "--master-address": "10.0.0.7",
        "--world-size": "5",
        "--timeout": "30.0",
    }


async def test_the_last_words_of_a_sender_are_the_reason(tmp_path: Path):
    with pytest.raises(TransferFailedError, match=r"^no route to the engine$"):
        await sender("import sys; print('a trace', file=sys.stderr); sys.exit('no route to the engine')").send(
            "u", tmp_path, 30.0
        )
    with pytest.raises(TransferFailedError, match="ended with 3"):
        await sender("import sys; sys.exit(3)").send("u", tmp_path, 30.0)


async def test_a_sender_that_hangs_is_killed(tmp_path: Path):
    with pytest.raises(TransferFailedError, match="did not end within"):
        await sender("import time; time.sleep(600)").send("u", tmp_path, 0.2)


async def test_without_a_gpu_the_engine_is_not_touched(tmp_path: Path):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    client = EngineClient("http://127.0.0.1:9", 1, Transfer("127.0.0.1", 1))
    with pytest.raises(EngineDownError) as failed:
        await client.reload_weights(tmp_path, 120.0)
    assert NO_GPU in str(failed.value)
    await client.close()


def test_what_is_sent_is_what_was_announced(tmp_path: Path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("vllm")
    from safetensors.torch import save_file

    from services.generation.sender import source_of

    parts = [{"b": torch.ones(2, 3), "a": torch.zeros(4, dtype=torch.bfloat16)}, {"c": torch.arange(5)}]
    for number, tensors in enumerate(parts):
        save_file(tensors, tmp_path / f"model-{number}.safetensors")
    source = source_of(tmp_path, "cpu")
    for _ in range(2):
        sent = dict(source)
        assert {name: tensor.tolist() for name, tensor in sent.items()} == {
            name: tensor.tolist() for tensors in parts for name, tensor in tensors.items()
        }
        assert [(item.name, item.dtype, item.shape) for item in source.metadata()] == [
            (name, tensor.dtype, tuple(tensor.shape)) for name, tensor in sent.items()
        ]
