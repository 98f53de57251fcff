"""Many agents on one model, as Python asks them: each role's answer is the one that PEFT gives with its adapter."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from gpu_workers.adapters.dice import rolled
from gpu_workers.bases import tiny
from gpu_workers.serve.port import AdapterSpec
from rillfold.embedded.ports import free_port
from rillfold.lorax import LoRAxConfig, LoRAxServer, MLConfig, MLPipelineManager
from rillfold.lorax.errors import (
    LoRAxDisabled,
    LoRAxState,
    NotAnswered,
    NotAnsweredNow,
    RoleRefused,
    UnknownRole,
    WishRefused,
)
from rillfold.lorax.wishes import wish_of
from rillfold.settings import Settings
from schemas.errors import Stop
from tests.support.models import ALL, save_adapter
from tests.support.workbench import Workbench, ask

PROMPT = "What is due?"
TOO_LONG = PROMPT * 50_000
TOKENS = 8


class Office:
    """A pipeline, and adapters for its roles."""

    def __init__(self, bench: Workbench, **config: Any) -> None:
        self.bench = bench
        settings = Settings(data_dir=bench.root / "data", cache_dir=bench.root / "cache", serve_threads=1)
        named = {
            f"lorax_{name}": value for name, value in ({"base_model": str(bench.base), "port": 0} | config).items()
        }
        self.pipeline = MLPipelineManager(MLConfig(**named), settings)

    def folder(self, name: str, seed: int) -> Path:
        """Where PEFT saved it, with its README."""
        return save_adapter(self.bench.model, self.bench.root / "saved" / name, seed, r=4, target_modules=ALL)

    def peft(self, folder: Path | None, text: str = PROMPT, tokens: int = TOKENS) -> str:
        spec = None if folder is None else AdapterSpec(key=("x", 1), folder=folder)  # type: ignore[arg-type]
        return self.bench.peft(spec, ask(text, max_tokens=tokens))

    async def says(self, role: str, text: str = PROMPT) -> str:
        said: str = (await self.pipeline.lorax_inference(role, text, max_tokens=TOKENS))["text"]
        return said

    def __enter__(self) -> Office:
        asyncio.run(self.pipeline.start_lorax_server())
        return self

    def __exit__(self, *_: object) -> None:
        if self.pipeline.get_lorax_status()["running"]:
            asyncio.run(self.pipeline.stop_lorax_server())


async def holds(true: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@pytest.fixture(scope="module")
def open_office(bench: Workbench) -> Iterator[Office]:
    with Office(bench) as office:
        yield office


def test_all_seven_variables_are_read_and_each_has_a_default() -> None:
    standard = MLConfig.from_env({})
    assert standard.enable_lorax and standard.lorax_base_model is None
    assert standard.lorax_adapter_cache_size == 100 and standard.lorax_max_concurrent_requests == 128
    assert standard.lorax_max_batch_size == 32 and standard.lorax_gpu_memory_utilization == 0.9
    given = {
        "AOS_ENABLE_LORAX": "false",
        "AOS_LORAX_BASE_MODEL": "/models/base",
        "AOS_LORAX_PORT": "9001",
        "AOS_LORAX_ADAPTER_CACHE_SIZE": "7",
        "AOS_LORAX_MAX_CONCURRENT_REQUESTS": "20",
        "AOS_LORAX_MAX_BATCH_SIZE": "4",
        "AOS_LORAX_GPU_MEMORY_UTILIZATION": "0.5",
    }
    config = MLConfig.from_env(given)
    assert not config.enable_lorax
    assert config.lorax() == LoRAxConfig(
        base_model="/models/base",
        port=9001,
        adapter_cache_size=7,
        max_concurrent_requests=20,
        max_batch_size=4,
        gpu_memory_utilization=0.5,
    )
    settings = config.lorax().over(Settings())
    assert (settings.base_model, settings.serve_port) == ("/models/base", 9001)
    assert (settings.serve_rows, settings.serve_adapters, settings.serve_company_adapters) == (4, 7, 7)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AOS_ENABLE_LORAX", "perhaps"),
        ("AOS_LORAX_PORT", "99999"),
        ("AOS_LORAX_ADAPTER_CACHE_SIZE", "0"),
        ("AOS_LORAX_MAX_CONCURRENT_REQUESTS", "many"),
        ("AOS_LORAX_MAX_BATCH_SIZE", "-1"),
        ("AOS_LORAX_GPU_MEMORY_UTILIZATION", "90"),
    ],
)
def test_a_bad_value_is_named_with_its_variable_and_the_remedy(name: str, value: str) -> None:
    with pytest.raises(Stop, match=f"{name}='{value}' is not usable.*[Cc]orrect or unset") as error:
        MLConfig.from_env({name: value})
    assert "Expected" in str(error.value) or "it is to be a whole number" in str(error.value)


def test_a_process_that_serves_no_agents_says_so(bench: Workbench) -> None:
    pipeline = MLPipelineManager(MLConfig(enable_lorax=False), Settings())
    with pytest.raises(LoRAxDisabled, match="AOS_ENABLE_LORAX"):
        asyncio.run(pipeline.start_lorax_server())


async def test_one_batch_answers_every_role_by_its_own_adapter(open_office: Office) -> None:
    pipeline = open_office.pipeline
    roles = {role: open_office.folder(role, seed) for seed, role in enumerate(("CEO", "CFO", "COO"), 1)}
    for role, folder in roles.items():
        info = pipeline.register_lorax_adapter(role, str(folder))
        assert (info.role, info.version, info.path) == (role, 1, str(folder))
    before = pipeline.get_lorax_status()["metrics"]["total_requests"]
    wishes = [{"agent_role": role, "prompt": PROMPT, "max_tokens": TOKENS} for role in [*roles, "CEO"]]
    answers = await pipeline.lorax_batch_inference(wishes)
    expected = [open_office.peft(folder) for folder in [*roles.values(), roles["CEO"]]]
    assert [answer["text"] for answer in answers] == expected
    assert len({*expected, open_office.peft(None)}) == 4
    assert [answer["adapter"] for answer in answers] == ["CEO@1", "CFO@1", "COO@1", "CEO@1"]
    assert await open_office.says("CFO") == expected[1]
    status = pipeline.get_lorax_status()
    assert status["running"] and status["alive"] and status["metrics"]["in_flight"] == 0
    assert status["metrics"]["total_requests"] == before + 5
    assert {each["role"] for each in status["adapters"]} >= set(roles)


async def test_stats_of_each_adapter(open_office: Office) -> None:
    pipeline = open_office.pipeline
    pipeline.register_lorax_adapter("CRO", open_office.folder("CRO", 11))
    assert pipeline.get_lorax_adapter_stats("CRO")["last_used"] is None
    for _ in range(2):
        await open_office.says("CRO")
    with pytest.raises(NotAnswered, match=r"CRO .*prompt_too_long"):
        await pipeline.lorax_inference("CRO", TOO_LONG)
    stats = pipeline.get_lorax_adapter_stats()["CRO"]
    prompt = len(open_office.bench.chat.prompt(ask(PROMPT).messages))
    assert (stats["requests"], stats["failures"]) == (3, 1)
    assert stats["prompt_tokens"] == 2 * prompt and 0 < stats["completion_tokens"] <= 2 * TOKENS
    assert stats["tokens"] == stats["prompt_tokens"] + stats["completion_tokens"]
    assert stats["resident"] and stats["bytes"] > 0 and stats["rank"] == 4
    assert stats["mean_latency_ms"] > 0 and stats["last_used"] > 1_700_000_000
    json.dumps(pipeline.get_lorax_status()), json.dumps(stats)
    with pytest.raises(UnknownRole, match=r"'CXO'.*CRO"):
        pipeline.get_lorax_adapter_stats("CXO")


async def test_a_role_that_nobody_has_is_never_the_base(open_office: Office) -> None:
    pipeline = open_office.pipeline
    pipeline.register_lorax_adapter("CTO", open_office.folder("CTO", 12))
    asked = pipeline.get_lorax_adapter_stats("CTO")["requests"]
    model = pipeline.get_lorax_status()["base_model"]
    for role in ("CXO", "cto", "", model, "CTO@1", "../CTO"):
        with pytest.raises(UnknownRole, match="CTO"):
            await pipeline.lorax_inference(role, PROMPT)
        with pytest.raises(UnknownRole, match="CTO"):
            await pipeline.lorax_batch_inference(
                [{"agent_role": "CTO", "prompt": PROMPT}, {"agent_role": role, "prompt": PROMPT}]
            )
    assert pipeline.get_lorax_adapter_stats("CTO")["requests"] == asked


UNFIT: list[dict[str, Any]] = [
    {"max_tokens": 0},
    {"temperature": -1.0},
    {"temperature": float("nan")},
    {"top_p": 0.0},
    {"top_k": -1},
    {"min_p": 2.0},
    {"stop": ""},
    {"stop": ["x"] * 17},
]


def test_a_request_that_is_wrong_in_itself_names_what_it_may_have() -> None:
    for given in (
        {"prompt": "x"},
        {"agent_role": "CEO"},
        {"agent_role": "CEO", "prompt": 3},
        {"agent_role": "CEO", "prompt": "x", "max_token": 3},
        {"agent_role": "CEO", "prompt": "x", 3: 4},
        "hi",
        None,
        ["CEO", "x"],
        *({"agent_role": "CEO", "prompt": "x"} | unfit for unfit in UNFIT),
    ):
        with pytest.raises(WishRefused, match="agent_role, prompt, system, max_tokens"):
            wish_of(given)  # type: ignore[arg-type]


def test_every_option_is_the_question_s() -> None:
    options = {
        "max_tokens": 3, "temperature": 0.5, "top_p": 0.9, "top_k": 4, "min_p": 0.1, "seed": 7, "stop": ["x"],
    }  # fmt: skip
    question = wish_of({"agent_role": "CEO", "prompt": "p", "system": "s", **options}).question("1")
    assert [(message.role, message.content) for message in question.messages] == [("system", "s"), ("user", "p")]
    assert {name: getattr(question, name) for name in options} == options | {"stop": ("x",)}
    assert question.adapter == "CEO" and question.version is None and question.company is None


async def test_a_batch_with_one_that_is_wrong_in_itself_asks_nobody(open_office: Office) -> None:
    pipeline = open_office.pipeline
    pipeline.register_lorax_adapter("CCO", open_office.folder("CCO", 45))
    good = {"agent_role": "CCO", "prompt": PROMPT}
    for unfit in UNFIT:
        with pytest.raises(WishRefused, match=rf"request 1 of the list.*{next(iter(unfit))}"):
            await pipeline.lorax_batch_inference([good, good | unfit])
    for none in ("hi", ["hi"], None, 7, good):
        with pytest.raises(WishRefused):
            await pipeline.lorax_batch_inference(none)  # type: ignore[arg-type]
    assert pipeline.get_lorax_adapter_stats("CCO")["requests"] == 0


def test_a_stop_may_be_one_text() -> None:
    assert wish_of({"agent_role": "CEO", "prompt": "p", "stop": "ab"}).question("1").stop == ("ab",)


async def test_one_that_fails_leaves_the_others_their_answers(open_office: Office) -> None:
    folder = open_office.folder("CHRO", 13)
    open_office.pipeline.register_lorax_adapter("CHRO", folder)
    good = {"agent_role": "CHRO", "prompt": PROMPT, "max_tokens": TOKENS}
    first, wrong, last = await open_office.pipeline.lorax_batch_inference([good, good | {"prompt": TOO_LONG}, good])
    assert first["text"] == last["text"] == open_office.peft(folder)
    assert wrong["error"]["reason"] == "prompt_too_long" and "letters" in wrong["error"]["detail"]
    assert "text" not in wrong and "error" not in first


def broken(folder: Path) -> None:
    tensors = folder / "adapter_model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-7])


def without_config(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()


def foreign(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))


@pytest.mark.parametrize(
    ("spoil", "why"), [(broken, "safetensors"), (without_config, "adapter_config"), (foreign, "use_dora")]
)
async def test_an_adapter_that_is_broken_is_refused_when_it_is_registered(
    open_office: Office, spoil: Any, why: str
) -> None:
    pipeline, good = open_office.pipeline, open_office.folder("CDO", 14)
    pipeline.register_lorax_adapter("CDO", good)
    bad = open_office.folder("CDO-bad", 15)
    spoil(bad)
    with pytest.raises(RoleRefused, match=f"CDO.*{why}"):
        pipeline.register_lorax_adapter("CDO", bad)
    assert await open_office.says("CDO") == open_office.peft(good)
    with pytest.raises(RoleRefused, match="nobody"):
        pipeline.register_lorax_adapter("nobody", bad)
    assert "nobody" not in pipeline.get_lorax_adapter_stats()


def test_a_path_that_is_nowhere_and_names_that_are_none(open_office: Office, tmp_path: Path) -> None:
    good = open_office.folder("CMO", 16)
    with pytest.raises(RoleRefused, match="is no folder"):
        open_office.pipeline.register_lorax_adapter("CMO", tmp_path / "nowhere")
    model = open_office.pipeline.get_lorax_status()["base_model"]
    for role in ("", "a/b", "a b", "CEO@2", "x" * 65, model):
        with pytest.raises(RoleRefused, match="name"):
            open_office.pipeline.register_lorax_adapter(role, good)
    for nothing in (None, 7):
        with pytest.raises(RoleRefused, match=f"{nothing} is no name"):
            open_office.pipeline.register_lorax_adapter(nothing, good)  # type: ignore[arg-type]
        with pytest.raises(RoleRefused, match=f"CMO: {nothing} is no path"):
            open_office.pipeline.register_lorax_adapter("CMO", nothing)  # type: ignore[arg-type]


def test_an_adapter_of_another_base_is_refused(open_office: Office, tmp_path: Path) -> None:
    bench, pipeline = open_office.bench, open_office.pipeline
    wide = tiny.make(tmp_path / "wide", ["Other words."], hidden=32)
    from transformers import AutoModelForCausalLM

    misfit = save_adapter(AutoModelForCausalLM.from_pretrained(wide), tmp_path / "wide-a", 1, r=4, target_modules=ALL)
    (misfit / "adapter_config.json").write_text(
        (misfit / "adapter_config.json").read_text().replace(str(wide), "somebody/model")
    )
    with pytest.raises(RoleRefused, match="no place in this base"):
        pipeline.register_lorax_adapter("other", misfit)
    # Of the same shape: only that the adapter names a folder that is here tells them apart.
    twin = tiny.make(tmp_path / "twin", ["Look up."], seed=9)
    like = save_adapter(AutoModelForCausalLM.from_pretrained(twin), tmp_path / "twin-a", 1, r=4, target_modules=ALL)
    with pytest.raises(RoleRefused, match="trained on base"):
        pipeline.register_lorax_adapter("other", like)
    # An artifact of a store says it by itself.
    spec = bench.adapter("acme/ops", seed=17)
    assert pipeline.register_lorax_adapter("other", spec.folder).sha256 == spec.sha256


async def test_a_swap_lets_what_is_under_way_finish_on_the_old(open_office: Office) -> None:
    pipeline = open_office.pipeline
    old, new = open_office.folder("swap-old", 21), open_office.folder("swap-new", 22)
    pipeline.register_lorax_adapter("COS", old)
    many = [{"agent_role": "COS", "prompt": PROMPT, "max_tokens": 600} for _ in range(8)]
    under_way = asyncio.create_task(pipeline.lorax_batch_inference(many))
    await holds(lambda: pipeline.get_lorax_status()["engine"]["running"])
    info = await asyncio.to_thread(pipeline.register_lorax_adapter, "COS", new)
    swapped_first = not under_way.done()
    assert info.version == 2
    assert await open_office.says("COS") == open_office.peft(new)
    answers = await under_way
    expected = open_office.peft(old, tokens=600)
    assert {answer["text"] for answer in answers} == {expected}
    assert {answer["adapter"] for answer in answers} == {"COS@1"}
    assert swapped_first
    assert [each["version"] for each in pipeline.get_lorax_status()["adapters"] if each["role"] == "COS"] == [2]


async def test_what_becomes_of_the_folder_later_changes_nothing(bench: Workbench) -> None:
    """One place in memory: each answer reads its adapter anew."""
    office = Office(bench, adapter_cache_size=1)
    await office.pipeline.start_lorax_server()
    try:
        here, other = office.folder("here", 31), office.folder("other", 32)
        expected = office.peft(here), office.peft(other)
        office.pipeline.register_lorax_adapter("here", here)
        office.pipeline.register_lorax_adapter("other", other)
        shutil.rmtree(here)
        assert (await office.says("here"), await office.says("other"), await office.says("here")) == (
            *expected,
            expected[0],
        )
        stats = office.pipeline.get_lorax_adapter_stats()
        assert [stats[role]["resident"] for role in ("here", "other")] == [True, False]
    finally:
        await office.pipeline.stop_lorax_server()


async def test_a_role_is_judged_also_while_every_place_is_taken(bench: Workbench) -> None:
    office = Office(bench, adapter_cache_size=1)
    await office.pipeline.start_lorax_server()
    try:
        office.pipeline.register_lorax_adapter("busy", office.folder("busy", 33))
        under_way = asyncio.create_task(office.pipeline.lorax_inference("busy", PROMPT, max_tokens=400))
        await holds(lambda: office.pipeline.get_lorax_status()["engine"]["running"])
        good, bad = office.folder("good", 34), office.folder("bad", 35)
        broken(bad)
        with pytest.raises(RoleRefused, match="safetensors"):
            await asyncio.to_thread(office.pipeline.register_lorax_adapter, "bad", bad)
        await asyncio.to_thread(office.pipeline.register_lorax_adapter, "good", good)
        assert await office.says("good") == office.peft(good)
        assert (await under_way)["adapter"] == "busy@1"
    finally:
        await office.pipeline.stop_lorax_server()


def test_callers_without_an_event_loop_and_in_many_threads(open_office: Office) -> None:
    folder = open_office.folder("CPO", 18)
    open_office.pipeline.register_lorax_adapter("CPO", folder)
    with ThreadPoolExecutor(4) as threads:
        said = list(threads.map(lambda _: asyncio.run(open_office.says("CPO")), range(8)))
    assert set(said) == {open_office.peft(folder)}


def test_the_wrong_time_is_named(bench: Workbench) -> None:
    office = Office(bench)
    pipeline = office.pipeline
    folder = office.folder("CEO", 1)
    uses: list[Any] = [
        lambda: pipeline.register_lorax_adapter("CEO", folder),
        lambda: asyncio.run(pipeline.lorax_inference("CEO", PROMPT)),
        lambda: asyncio.run(pipeline.lorax_batch_inference([{"agent_role": "CEO", "prompt": PROMPT}])),
        lambda: asyncio.run(pipeline.stop_lorax_server()),
        pipeline.get_lorax_adapter_stats,
    ]

    def all_refused() -> None:
        for use in uses:
            with pytest.raises(LoRAxState, match=r"stopped.*start_lorax_server"):
                use()
        assert pipeline.get_lorax_status()["running"] is False

    all_refused()
    with office:
        with pytest.raises(LoRAxState, match="running already"):
            asyncio.run(pipeline.start_lorax_server())
        pipeline.register_lorax_adapter("CEO", folder)
        assert asyncio.run(office.says("CEO")) == office.peft(folder)
    all_refused()
    with office, pytest.raises(UnknownRole, match="none yet"):  # again, and it knows nobody yet
        asyncio.run(office.says("CEO"))


def test_a_start_that_fails_leaves_it_stopped(bench: Workbench) -> None:
    before = set(threading.enumerate())
    with Office(bench) as first:
        taken = int(first.pipeline.server.url.split(":")[2].split("/")[0])
        second = Office(bench, port=taken)
        with pytest.raises(Stop, match=f"AOS_LORAX_PORT={taken}"):
            asyncio.run(second.pipeline.start_lorax_server())
    with second:
        assert second.pipeline.get_lorax_status()["url"].endswith(f":{taken}/v1")
    nowhere = Office(bench, base_model=str(bench.root / "no-such-base"))
    with pytest.raises(Stop, match="no-such-base"):
        asyncio.run(nowhere.pipeline.start_lorax_server())
    for left in set(threading.enumerate()) - before:
        left.join(5)
        assert not left.is_alive(), left


async def test_a_stop_lets_what_is_under_way_finish(bench: Workbench) -> None:
    office = Office(bench, max_concurrent_requests=2)
    await office.pipeline.start_lorax_server()
    folder = office.folder("last", 41)
    office.pipeline.register_lorax_adapter("last", folder)
    many = [{"agent_role": "last", "prompt": PROMPT, "max_tokens": 60} for _ in range(6)]
    under_way = asyncio.create_task(office.pipeline.lorax_batch_inference(many))
    await holds(lambda: office.pipeline.get_lorax_status()["engine"]["running"])
    await office.pipeline.stop_lorax_server()
    answers = await asyncio.wait_for(under_way, 5)
    expected = office.peft(folder, tokens=60)
    assert [answer["text"] for answer in answers if "text" in answer].count(expected) >= 2
    refused = [answer["error"] for answer in answers if "error" in answer]
    assert len(refused) >= 2, "no more than two at once"
    assert {(each["reason"], each["again"]) for each in refused} == {("engine_stopped", True)}


async def test_a_stop_without_patience_fails_by_name_what_is_left(bench: Workbench) -> None:
    office = Office(bench)
    await office.pipeline.start_lorax_server()
    office.pipeline.register_lorax_adapter("late", office.folder("late", 42))
    under_way = [
        asyncio.create_task(office.pipeline.lorax_inference("late", f"{PROMPT} {n}", max_tokens=900)) for n in range(4)
    ]
    await holds(lambda: office.pipeline.get_lorax_status()["engine"]["running"])
    await office.pipeline.stop_lorax_server(patience=0)
    ended = await asyncio.wait_for(asyncio.gather(*under_way, return_exceptions=True), 5)
    assert all(isinstance(each, NotAnsweredNow | dict) for each in ended), ended
    assert any(isinstance(each, NotAnsweredNow) and each.reason == "engine_stopped" for each in ended)


async def test_who_leaves_takes_the_question_out(open_office: Office) -> None:
    pipeline = open_office.pipeline
    pipeline.register_lorax_adapter("CSO", open_office.folder("CSO", 19))
    left = asyncio.create_task(pipeline.lorax_inference("CSO", PROMPT, max_tokens=900))
    await holds(lambda: pipeline.get_lorax_status()["engine"]["running"])
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    await holds(lambda: not pipeline.get_lorax_status()["metrics"]["in_flight"])
    assert pipeline.get_lorax_adapter_stats("CSO")["failures"] == 1


def client_of(pipeline: MLPipelineManager, key: str | None = None) -> openai.AsyncOpenAI:
    status = pipeline.get_lorax_status()
    return openai.AsyncOpenAI(
        base_url=status["url"], api_key=key or Path(status["key"]).read_text().strip(), max_retries=0
    )


async def test_any_openai_client_asks_a_role_as_a_model(open_office: Office) -> None:
    pipeline = open_office.pipeline
    folder = open_office.folder("GC", 20)
    pipeline.register_lorax_adapter("GC", folder)
    hello: Any = [{"role": "user", "content": PROMPT}]
    async with client_of(pipeline) as client:
        names = [model.id async for model in client.models.list()]
        assert {"GC", "GC@1", pipeline.get_lorax_status()["base_model"]} <= set(names)
        for model in ("GC", "GC@1"):
            answer = await client.chat.completions.create(model=model, messages=hello, max_tokens=TOKENS)
            assert answer.choices[0].message.content == open_office.peft(folder)
        with pytest.raises(openai.NotFoundError, match="GC") as error:
            await client.chat.completions.create(model="gc", messages=hello)
        assert error.value.code == "model_not_found"
    assert pipeline.get_lorax_adapter_stats("GC")["requests"] == 2
    async with client_of(pipeline, "wrong") as stranger:
        with pytest.raises(openai.AuthenticationError):
            await stranger.models.list()


async def test_over_http_too_many_are_told_to_come_again(bench: Workbench) -> None:
    office = Office(bench, max_concurrent_requests=1)
    await office.pipeline.start_lorax_server()
    try:
        folder = office.folder("one", 43)
        office.pipeline.register_lorax_adapter("one", folder)
        under_way = asyncio.create_task(office.pipeline.lorax_inference("one", PROMPT, max_tokens=300))
        await holds(lambda: office.pipeline.get_lorax_status()["engine"]["running"])
        async with client_of(office.pipeline) as client:
            with pytest.raises(openai.RateLimitError):
                await client.chat.completions.create(model="one", messages=[{"role": "user", "content": PROMPT}])
        assert await office.says("one") == office.peft(folder), "Python callers wait for their turn"
        await under_way
    finally:
        await office.pipeline.stop_lorax_server()


def test_a_server_without_the_pipeline(bench: Workbench) -> None:
    config = LoRAxConfig(base_model=str(bench.base), port=free_port())
    server = LoRAxServer(config, Settings(data_dir=bench.root / "data", cache_dir=bench.root / "cache"))
    server.start()
    try:
        assert server.url == f"http://127.0.0.1:{config.port}/v1"
        folder = save_adapter(bench.model, bench.root / "saved" / "alone", 44, r=4, target_modules=ALL)
        assert server.register("alone", folder).result().role == "alone"
    finally:
        server.stop()


@pytest.mark.timeout(240)
async def test_a_hundred_agents_are_in_memory_and_all_answer(bench: Workbench) -> None:
    office = Office(bench)
    await office.pipeline.start_lorax_server()
    try:
        roles = [f"agent-{n:03}" for n in range(100)]
        for seed, role in enumerate(roles):
            folder = rolled(bench.base, bench.root / "saved" / role, seed, rank=4)
            office.pipeline.register_lorax_adapter(role, folder)
        wishes = [{"agent_role": role, "prompt": PROMPT, "max_tokens": 4} for role in roles]
        answers = await office.pipeline.lorax_batch_inference(wishes)
        assert [answer["adapter"] for answer in answers] == [f"{role}@1" for role in roles]
        stats = office.pipeline.get_lorax_adapter_stats()
        assert all(stats[role]["resident"] and stats[role]["requests"] == 1 for role in roles)
        engine = office.pipeline.get_lorax_status()["engine"]
        assert office.pipeline.get_lorax_status()["metrics"]["most_running"] > 16
        assert (engine["resident"], engine["loads"], engine["evictions"]) == (100, 100, 0)
        for n in (0, 37, 99):
            assert answers[n]["text"] == office.peft(bench.root / "saved" / roles[n], tokens=4)
    finally:
        await office.pipeline.stop_lorax_server()
