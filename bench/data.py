"""Prepare a table of 300,000 rows, ours beside pandas and scikit-learn:  python bench/data.py

Makes a CSV of Korean questions and answers from a seed (a fifth of the rows are duplicates, near duplicates, conflicts, or
hold HTML, URLs, decomposed Hangul or too many blanks), then runs in turn, each in a fresh process:

  ours         prepare_mlx_data.py with --keep-near-duplicates' work left out: cleaning, exact duplicates, split by group
  pandas       read_csv, apply(clean), drop_duplicates, a split by the same hash of the group, to_json(lines=True)
  ours + near  what prepare_mlx_data.py does: near duplicates too, for which pandas has nothing

pandas cleans with the plain chain of regular expressions that such a script has, of the same meaning; `--lend` lends it our
cleaning instead. Checks that ours and pandas gave the same rows in each part. Prints rows per second of CPU time
(of the work, without imports), the peak resident memory of the process (with them) and their ratios to ours: medians over
--repeats, lowest and highest. Needs
requirements-dev.txt.
"""

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import unicodedata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

SHARES = {"valid_share": 0.1, "test_share": 0.1}
THINGS = (
    "제품 공장 본사 연구소 창고 계약 배송 환불 결제 회원 설치 점검 보증 교육 상담 예약 품질 안전 설계 해석".split()
)
PLACES = (
    "서울 부산 대구 인천 광주 대전 울산 세종 수원 창원 전주 청주 천안 제주 포항 강릉 춘천 여수 목포 안동".split()
)
ASKS = "절차가 어떻게 되나요?|기준을 알려 주세요.|담당 부서가 어디인가요?|비용이 얼마나 드나요?|일정이 궁금합니다.".split(
    "|"
)
WORDS = (
    "신청서 승인 담당자 확인 접수 결과 이메일 통보 영업일 이내 처리 비용 무료 추가 요금 발생 문의 고객센터 운영 시간 평일 오전"
    " 오후 주말 휴무 서류 제출 검토 필요 경우 별도 안내 품목 수량 단가 할인 적용 기간 연장 가능 불가 조건 변경 취소 환급 계좌 입금"
    " 시뮬레이션 격자 해석 모델 학습 데이터 정확도 오차 예측 설계 변수 최적화 서버 장비 점검 교체 주기 온도 압력 유량 속도 하중"
).split()


def make_table(path, number, seed=0):
    """Write a CSV of `number` rows: 질문, 답변, 분류."""
    import csv

    draw, made = random.Random(seed), []
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["번호", "질문", "답변", "분류"])
        for place in range(number):
            kind = draw.random()
            if made and kind < 0.12:
                question, answer = draw.choice(made)
                if kind < 0.04:
                    question = f" {question}  "
                elif kind < 0.08:
                    question = question.replace("요", "요오", 1) if kind < 0.06 else f"{question} 네?"
                elif kind < 0.10:
                    answer = sentence(draw, 8)
            else:
                asked = (
                    f"{draw.choice(PLACES)} {draw.choice(THINGS)} {draw.randrange(100000)}번 {sentence(draw, 4)}"
                )
                question, answer = f"{asked} {draw.choice(ASKS)}", sentence(draw, draw.randrange(6, 24))
                if kind < 0.15:
                    answer = f"<p>{answer}</p><br/>자세한 것은 <b>{sentence(draw, 2)}</b> &amp; 문의"
                elif kind < 0.17:
                    answer = f"{answer} https://example.com/faq?id={place} 참고"
                elif kind < 0.18:
                    question = unicodedata.normalize("NFD", question)
                elif kind < 0.20:
                    answer = answer.replace(" ", "  ").replace("  ", "\u00a0", 1) + "\u200b"
                if len(made) < 20000:
                    made.append((question, answer))
            table.writerow([place, question, answer, draw.choice(THINGS)])


def sentence(draw, words):
    return " ".join(draw.choices(WORDS, k=words))


def clock():
    """Seconds on the wall, and of the processor (all threads)."""
    return time.perf_counter(), time.process_time()


def ours(table, folder, near):
    """Prepare `table` with the lab; returns its seconds, see `clock`."""
    import contextlib
    import io

    import prepare_mlx_data
    from lab import corpus, dialogues, general, mixing, table_data  # noqa: F401  (imports are not timed)

    if not near:
        table_data.drop_near = lambda *_: 0
    flags = ["--input", table, "--question-column", "질문", "--answer-column", "답변", "--label-column", "분류"]
    started = clock()
    with contextlib.redirect_stdout(io.StringIO()):
        prepare_mlx_data.main([*flags, "--output-dir", folder])
    return [now - then for now, then in zip(clock(), started, strict=True)]


def plainly_cleaned(text):
    """`text` after the chain of substitutions that a script applies to every cell."""
    import html
    import re

    from lab import cleaning

    text = cleaning.CONTROL.sub("", text)
    text = unicodedata.normalize("NFC", text)
    text = cleaning.TAG.sub(lambda match: "\n" if match[1].lower() in cleaning.BLOCK else "", text)
    text = html.unescape(text)
    text = cleaning.LINK.sub("", text)
    text = re.sub(r"[^\S\n]*\n\s*", lambda match: "\n" * min(2, match[0].count("\n")), text)
    return re.sub(r"[^\S\n]+", " ", text).strip()


def pandas_way(table, folder, lend):
    """The same with pandas and scikit-learn; returns its seconds, see `clock`."""
    import numpy as np
    import pandas
    from sklearn.model_selection import PredefinedSplit

    from lab import cleaning
    from lab.corpus import key_of
    from lab.splits import group_hash

    def group_of(answer):
        return group_hash(0, f"answer {int.from_bytes(key_of(answer)[:8], 'big')}") / 2**64

    started = clock()
    rows = pandas.read_csv(table, dtype=str, keep_default_na=False)
    for column in ("질문", "답변"):
        rows[column] = rows[column].apply(cleaning.clean if lend else plainly_cleaned)
    rows = rows[(rows["질문"].str.len() >= 2) & (rows["답변"].str.len() >= 1)]
    rows["key"] = rows["질문"].str.casefold().str.split().str.join(" ")
    rows = rows.drop_duplicates(subset=["key"])
    folded = rows["답변"].str.casefold().str.split().str.join(" ")
    shares = folded.map({answer: group_of(answer) for answer in folded.unique()})
    folds = np.where(shares < SHARES["test_share"], 1, np.where(shares < sum(SHARES.values()), 0, -1))
    splitter = PredefinedSplit(folds)
    held = [test for _, test in splitter.split()]
    parts = {"valid": held[0], "test": held[1], "train": np.flatnonzero(folds == -1)}
    for name, places in parts.items():
        part = rows.iloc[places]
        turns = [
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            for question, answer in zip(part["질문"], part["답변"], strict=True)
        ]
        out = pandas.DataFrame({"messages": turns, "분류": part["분류"].to_numpy()})
        out.to_json(f"{folder}/{name}.jsonl", orient="records", lines=True, force_ascii=False)
    return [now - then for now, then in zip(clock(), started, strict=True)]


def parts_in(folder):
    """{part: the set of its rows}, to compare."""
    found = {}
    for name in ("train", "valid", "test"):
        with open(Path(folder) / f"{name}.jsonl", encoding="utf-8") as file:
            found[name] = {json.dumps(json.loads(line), sort_keys=True) for line in file}
    return found


def measured(kind, table, folder):
    """{"wall", "cpu", "bytes"} of one way in a process of its own."""
    command = [sys.executable, __file__, "--one", kind, "--table", str(table), "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{kind}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def one(args):
    """Run one way in this process and print what it took."""
    Path(args.folder).mkdir(parents=True, exist_ok=True)
    if args.one.startswith("ours"):
        seconds = ours(args.table, args.folder, near=args.one.endswith("near"))
    else:
        seconds = pandas_way(args.table, args.folder, lend=args.one.endswith("lent"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"wall": seconds[0], "cpu": seconds[1], "bytes": peak}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000, help="rows of the table (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each way, in turn (%(default)s)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--table", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(args)
        return
    ways = ["ours", "pandas", "pandas lent", "ours near"]
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table.csv"
        make_table(table, args.rows)
        found = {way: [] for way in ways}
        for _ in range(args.repeats):
            for way in ways:
                found[way].append(measured(way, table, Path(folder) / way))
        rows = [parts_in(Path(folder) / way) for way in ways[:3]]
        if not rows[0] == rows[1] == rows[2]:
            differ = {name: len(rows[0][name] ^ rows[1][name]) for name in rows[0]}
            sys.exit(f"the rows differ: {differ}")
        kept = {name: len(part) for name, part in rows[0].items()}
        print(
            f"{args.rows:,} rows, {table.stat().st_size / 1e6:.0f} MB; the same rows from all but the last: {kept}"
        )
        print(f"{'':14} {'rows/CPU s':>12} {'memory':>9}   this / ours: CPU time, time, memory")
        for way in ways:
            report(args.rows, way, found)


def report(number, way, found):
    """Print the medians of one way and ours beside it."""
    own, other = found["ours"], found[way]
    ratios = {}
    for key in ("cpu", "wall", "bytes"):
        each = [theirs[key] / mine[key] for mine, theirs in zip(own, other, strict=True)]
        ratios[key] = f"{statistics.median(each):.2f}x ({min(each):.2f}-{max(each):.2f})"
    speed = number / statistics.median(run["cpu"] for run in other)
    memory = statistics.median(run["bytes"] for run in other) / 1e6
    print(f"{way:14} {speed:12,.0f} {memory:6.0f} MB   {'   '.join(ratios.values())}")


if __name__ == "__main__":
    main()
