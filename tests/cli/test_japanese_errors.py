"""Errors as a Japanese person sees them; what scripts read stays English."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from tests.cli.commands import sdft


@pytest.fixture(autouse=True)
def japanese(monkeypatch, tmp_path):
    monkeypatch.setenv("SDFT_LANG", "ja")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "images" / "1.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.toml").write_text("a = \n", "utf-8")
    (tmp_path / "config.toml").write_text("[a]\nseed = 1\n[b]\nseed = 2\n", "utf-8")
    (tmp_path / "twice.toml").write_text("[general]\n\n[[datasets]]\nresolutoin = 5\n", "utf-8")


CASES = {
    "train config.toml": "seed が 2 回書かれています",
    "trian": "「trian」というコマンドはありません",
    "train --learning_ratt 1": "そのようなオプションはありません",
    "train --learning_rate": "値が必要です",
    "train images": "どのオプションにも属さない語です",
    "train --learning_rate x": 'learning_rate に "x" は使えません',
    "train --train_data_dir images --resolution 64": "学習の元になるモデルが指定されていません",
    "bucket": "画像が指定されていません",
    "bucket nothing.toml": "そのようなファイルはありません",
    "bucket broken.toml": "TOML として正しくありません",
    "bucket twice.toml": "「resolutoin」という項目はありません",
    "bucket --train_data_dir empty --resolution 64": "フォルダーに画像がありません",
    "bucket --train_data_dir nothing --resolution 64": "nothing が存在しないか",
    "bucket --train_data_dir images --resolution 64": "「名前.caption」のキャプションがありません",
    "verify images/1.png": "モデルのファイルではない",
    "ctl images save": "学習の記録が見つかりません",
    "sample nothing.safetensors --prompt x": "が見つかりません",
}


@pytest.mark.parametrize("line", CASES)
def test_common_mistakes_are_told_in_japanese(line, capsys):
    code, _, said = sdft(capsys, *line.split())
    assert code in (2, 4)
    assert "エラー: " in said
    assert CASES[line] in said


def test_what_scripts_read_stays_english(capsys):
    code, printed, _ = sdft(capsys, "bucket", "nothing.toml", "--json")
    assert code == 2
    assert printed["problems"][0]["what"] == "no such file"
    assert printed["problems"][0]["key"] == "no_such_file"
    assert json.dumps(printed).isascii()
