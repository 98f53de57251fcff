"""The commands as a person types them: out of the log and its store, or out of a folder."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import gguf
import pytest
from click.testing import CliRunner, Result

from gpu_workers.adapters.store import CONFIG, TENSORS, Facts, FolderStore
from gpu_workers.bases.files import file_sha256
from rillfold.cli import rillfold
from rillfold.embedded.state import Endpoints
from rillfold.registry import NoAdapter
from schemas.adapters import AdapterReady
from schemas.topics import BY_NAME, TopicNames
from streams.log.kafka.admin import wanted
from streams.log.kafka.log import KafkaLog
from streams.log.outgoing import to_outgoing
from tests.export.conftest import Exported
from tests.support.worker import external


async def test_an_adapter_of_the_log_and_its_base_leave_as_files(
    stack: Endpoints, kafka: KafkaLog, names: TopicNames, tmp_path: Path, one_export: Exported
) -> None:
    identity, data = one_export.identity, tmp_path / "data"
    facts = Facts(company="acme", base_model="tiny", base_sha256=identity.sha256, tools_in_prompt=True)
    sha256 = FolderStore(data / "adapters").put(one_export.adapters["AdaLoRA"], facts)
    ready = AdapterReady(
        id="r", company="acme", time=1, correlation="r", adapter="acme/default", adapter_version=4, run="r",
        sha256=sha256, uri="file:///a", method="adalora", rank=8, alpha=8.0, base_model="tiny",
        base_sha256=identity.sha256, manifest="d" * 64, ranges=(), seed=0, identity="{}", evaluation=None,
    )  # fmt: skip
    await kafka.create(wanted(names, [BY_NAME["adapter-ready"]]))
    await kafka.append([to_outgoing(ready, names)])
    environment = external(stack.bootstrap_servers, names.prefix, data)
    environment["RILLFOLD_BASE_MODELS"] = json.dumps({"tiny": str(one_export.folder)})
    environment["RILLFOLD_BASE_MODEL"] = "tiny"

    async def command(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner(catch_exceptions=False).invoke, rillfold, arguments, env=environment)

    out = tmp_path / "out"
    said = await command("adapters", "export", "acme/default", "--out", str(out), "--json")
    assert said.exit_code == 0, said.output
    file = out / "adapter.gguf"
    assert json.loads(said.stdout) == {"files": {str(file): file_sha256(file)}}
    fields = {name: field.contents() for name, field in gguf.GGUFReader(file).fields.items()}
    assert fields["general.name"] == "acme/default@4" and fields["general.base_model.0.name"] == "tiny"
    assert (fields["rillfold.adapter.sha256"], fields["rillfold.dataset.sha256"]) == (sha256, "d" * 64)

    peft = await command("adapters", "export", "acme/default@4", "--format", "peft", "--out", str(tmp_path / "peft"))
    assert peft.exit_code == 0 and f"{tmp_path}/peft/{CONFIG}" in peft.stdout and TENSORS in peft.stdout
    of_folder = await command("adapters", "export", str(tmp_path / "peft"), "--out", str(tmp_path / "again"))
    assert of_folder.exit_code == 0, of_folder.output

    base = await command("export-base", "--out", str(out))
    assert base.exit_code == 0 and (out / "tiny-F32.gguf").read_bytes()[:4] == b"GGUF"
    with pytest.raises(NoAdapter, match="known: acme/default@4"):
        await command("adapters", "export", "acme/default@5", "--out", str(out))
