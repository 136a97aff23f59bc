"""What a round opened, under the strata's names; what it hid is nowhere, and meets no gate."""

from apps.protocol.evidence import all_met, evidence_of

OPENED = {
    "auc_milli": 910,
    "auc_strata_milli": [930, None, None],
    "accuracy_milli": 880,
    "accuracy_strata_milli": [890, None, None],
    "recall_milli": 800,
    "recall_strata_milli": [850, None, None],
    "precision_milli": 914,
    "precision_strata_milli": [None, None, None],
    "calibration": [[40, 2, 71], None, None, None, [45, 38, 902]],
    "support": [[90, 40], [60, 25], None, None],
}


def test_a_hidden_stratum_states_no_count_and_meets_no_gate():
    gates = [{"metric": "auc", "min_milli": 900, "per_stratum": True}]
    evidence = evidence_of(OPENED, strata=["north", "south", "west"], gates=gates)
    assert evidence["support"] == {
        "all": {"rows": 90, "positives": 40},
        "by_stratum": {"north": {"rows": 60, "positives": 25}, "south": None, "west": None},
    }
    assert [(g["stratum"], g["got_milli"], g["met"]) for g in evidence["gates"]] == [
        (None, 910, True), ("north", 930, True), ("south", None, False), ("west", None, False),
    ]  # fmt: skip
    assert evidence["recall_by_stratum"] == {"north": 850, "south": None, "west": None}
    assert evidence["calibration"] == OPENED["calibration"]
    assert not all_met(evidence)
    assert all_met(evidence_of(OPENED, strata=["north", "south", "west"], gates=[]))


def test_intervals_follow_from_what_is_opened():
    """32 of 40 positives are found and 47 of 50 others left: 35 are called positive."""
    found = evidence_of(OPENED, strata=["north", "south", "west"], gates=[])["intervals"]
    assert found["precision"]["all"] == [776, 970]
    assert found["recall"]["all"] == [652, 895]
    assert found["precision"]["by_stratum"] == {"north": None, "south": None, "west": None}
    times = {"c_index_milli": 700, "c_index_strata_milli": [None], "support": [[90, 40], [9, 0]]}
    found = evidence_of(times, strata=["north"], gates=[])["intervals"]
    assert found["c_index"]["by_stratum"] == {"north": None}
    low, high = found["c_index"]["all"]
    assert 560 < low < 640 and 760 < high < 840


def test_intervals_of_r_squared_and_log_loss_need_their_spread():
    """R² 0.6 of 102 rows with spread 0.9: about the log of 0.4, ± 2.008 · 0.9005 / (0.4 · 10)."""
    opened = {
        "support": [102, 8, None],
        "r2_milli": 600,
        "r2_strata_milli": [-1000, None],
        "log_loss_milli": 400,
        "log_loss_strata_milli": [0, None],
    }
    spread = {
        "r2_spread_milli": 900,
        "r2_spread_strata_milli": [None, None],
        "log_loss_spread_milli": 900,
        "log_loss_spread_strata_milli": [0, None],
    }
    without = evidence_of(opened, strata=["north", "south"], gates=[])["intervals"]
    assert without["r2"] == {"all": None, "by_stratum": {"north": None, "south": None}}
    found = evidence_of(opened | spread, strata=["north", "south"], gates=[])["intervals"]
    assert found["r2"] == {"all": [371, 745], "by_stratum": {"north": None, "south": None}}
    assert found["log_loss"]["all"] == [255, 629]
    assert found["log_loss"]["by_stratum"] == {"north": [0, 2], "south": None}


def test_a_round_whose_rows_are_all_too_few_states_none():
    opened = OPENED | {"auc_milli": None, "support": [None] * 4}
    evidence = evidence_of(opened, strata=["north", "south", "west"], gates=[])
    assert evidence["support"]["all"] is None and evidence["auc_milli"] is None


def test_skill_has_the_interval_of_a_ratio_of_squared_errors() -> None:
    about = {"support": [200], "r2_milli": 640, "r2_strata_milli": [], "mae_skill_milli": 300}
    about |= {
        "mae_skill_strata_milli": [],
        "skill_strata_milli": [],
        "skill_spread_strata_milli": [],
    }
    found = evidence_of(
        about | {"skill_milli": 500, "skill_spread_milli": 900}, strata=[], gates=[]
    )
    low, high = found["intervals"]["skill"]["all"]
    # 1 − skill is off by 0.9/√200 of itself and more
    assert 330 < low < 400 and 570 < high < 620
    assert "mae_skill" not in found["intervals"]
    none = evidence_of(
        about | {"skill_milli": -1000, "skill_spread_milli": None}, strata=[], gates=[]
    )
    assert none["intervals"]["skill"]["all"] is None


def test_a_forecaster_has_an_interval_of_skill_against_the_last_value_alone() -> None:
    opened: dict[str, object] = {"support": [200]}
    for metric in ("r2", "skill"):
        opened |= {f"{metric}_milli": 500, f"{metric}_strata_milli": []}
        opened |= {f"{metric}_spread_milli": 900, f"{metric}_spread_strata_milli": []}
    for season, having in ((0, {"skill"}), (7, set())):
        found = evidence_of(opened, strata=[], gates=[], season=season)
        assert set(found["intervals"]) == having
    no_series = {name: value for name, value in opened.items() if "skill" not in name}
    assert evidence_of(no_series, strata=[], gates=[])["intervals"]["r2"]["all"] is not None
