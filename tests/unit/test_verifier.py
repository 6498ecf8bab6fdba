# SPDX-License-Identifier: BSD-2-Clause
"""The verifier's text: statistics, decisive lines, failed relocations."""

from __future__ import annotations

from pybpf import verifier

STATS = """\
verification time 107 usec
stack depth 16+8
processed 82 insns (limit 1000000) max_states_per_insn 1 total_states 6 peak_states 5 mark_read 4
"""

REFUSED = """\
0: R1=ctx() R10=fp0
; __u64 *value = bpf_map_lookup_elem(&counts, &key); @ refused.bpf.c:19
3: (85) call bpf_map_lookup_elem#1    ; R0=map_value_or_null(id=1,map=counts)
; *value += 1; @ refused.bpf.c:21
4: (79) r1 = *(u64 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'
processed 5 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""

REPORT = """\
; *value += 1; @ refused.bpf.c:21
4: (79) r1 = *(u64 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'

Verification failed: Register Type Safety: Invalid dereference

Reason:
  R0 may be NULL here (a nullable map value pointer). The program could dereference NULL on this
  path, so the verifier cannot prove this access is safe.

At:
  unchecked @ refused.bpf.c:21:9
  Source context:
  >>> 21 |         *value += 1;
         |         ^-- error: invalid dereference of R0 (a nullable map value pointer)

Suggestion:
  Add a NULL check before the access and dereference the pointer only on the non-NULL path.

processed 5 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""

POISONED = """\
; return BPF_CORE_READ(task, gone); @ missing.bpf.c:16
1: <invalid CO-RE relocation>
failed to resolve CO-RE relocation <byte_off> [5] struct task_struct___v2.gone (0:0 @ offset 0)
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""


def test_statistics_are_read_whole():
    stats = verifier.parse_stats(STATS)
    assert (stats.processed_insns, stats.insn_limit, stats.max_states_per_insn) == (82, 1000000, 1)
    assert (stats.total_states, stats.peak_states, stats.mark_read) == (6, 5, 4)
    assert (stats.verification_time_us, stats.stack_depth) == (107, (16, 8))
    assert str(stats) == "82 insns, 5 peak states, 107 us"


def test_statistics_of_nothing_are_none():
    assert verifier.parse_stats("") is None
    assert verifier.parse_stats("0: R1=ctx()\n") is None
    assert verifier.summary_line("") == ""


def test_statistics_without_what_a_kernel_leaves_out():
    line = "processed 3 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0\n"
    stats = verifier.parse_stats(line)
    assert (stats.processed_insns, stats.mark_read, stats.verification_time_us) == (3, None, None)
    assert verifier.summary_line(line) == line.strip()


def test_decisive_lines_are_the_last_source_line_and_what_follows():
    assert verifier.decisive_lines(REFUSED).splitlines() == [
        "; *value += 1; @ refused.bpf.c:21",
        "4: (79) r1 = *(u64 *)(r0 +0)",
        "R0 invalid mem access 'map_value_or_null'",
    ]
    assert verifier.decisive_lines("") == ""
    assert verifier.decisive_lines("no source\nat all") == "no source\nat all"


def test_decisive_lines_of_a_report_are_its_reason_and_suggestion_too():
    assert verifier.decisive_lines(REPORT).splitlines() == [
        "; *value += 1; @ refused.bpf.c:21",
        "4: (79) r1 = *(u64 *)(r0 +0)",
        "R0 invalid mem access 'map_value_or_null'",
        "Reason:",
        "  R0 may be NULL here (a nullable map value pointer). The program could dereference NULL "
        "on this",
        "  path, so the verifier cannot prove this access is safe.",
        "Suggestion:",
        "  Add a NULL check before the access and dereference the pointer only on the non-NULL "
        "path.",
    ]


def test_a_failed_relocation_is_named_without_its_flavour():
    missing = verifier.missing_field(POISONED)
    assert (missing.kind, missing.type_name, missing.field) == (
        "byte_off",
        "struct task_struct",
        "gone",
    )
    assert missing.source == "return BPF_CORE_READ(task, gone); @ missing.bpf.c:16"
    assert verifier.missing_field(REFUSED) is None


def test_failed_relocations_of_enumerators_and_types():
    enum = "failed to resolve CO-RE relocation <enumval_value> [7] enum color::RED = 1\n"
    missing = verifier.missing_field(enum)
    assert (missing.type_name, missing.field, missing.source) == ("enum color", "RED", None)
    size = "failed to resolve CO-RE relocation <type_size> [7] struct gone\n"
    assert (verifier.missing_field(size).type_name, verifier.missing_field(size).field) == (
        "struct gone",
        None,
    )


def test_logs_are_told_apart_by_program():
    messages = "".join(
        f"prog '{name}': -- BEGIN PROG LOAD LOG --\n{log}-- END PROG LOAD LOG --\n"
        for name, log in (("a", STATS), ("b", REFUSED))
    )
    assert verifier.program_logs("noise\n" + messages) == {"a": STATS, "b": REFUSED}
