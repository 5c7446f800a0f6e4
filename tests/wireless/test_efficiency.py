"""Efficiencies: closed forms, the standard's tables, and Sionna's link level as an oracle."""

import math

import numpy as np
import pytest

from wireless.efficiency import FittedNr, LinkAdaptation, Shannon

SNR_DB = np.arange(-20.0, 40.0, 0.25)
SNR = 10 ** (SNR_DB / 10)


def test_shannon():
    assert Shannon(gap_db=0.0).bps_hz(1.0) == pytest.approx(1)
    assert Shannon(gap_db=0.0).bps_hz(1023) == pytest.approx(10)
    # Ten decibels of gap are ten decibels of SNR.
    np.testing.assert_allclose(Shannon(10.0).bps_hz(SNR), Shannon(0.0).bps_hz(SNR / 10), rtol=1e-14)


def test_fitted_nr():
    fitted = FittedNr()
    # Of what is sent, nine tenths arrive.
    assert fitted.bps_hz(1e6) == pytest.approx(0.9 * 5.55)
    assert fitted.bps_hz(1.114) == pytest.approx(0.9 * 0.9)
    assert (fitted.bps_hz(SNR) < Shannon(0.0).bps_hz(SNR)).all()


@pytest.mark.parametrize("kind", [Shannon, FittedNr, LinkAdaptation])
def test_share_scales_and_is_validated(kind):
    np.testing.assert_allclose(kind(share=0.25).bps_hz(SNR), 0.25 * kind().bps_hz(SNR), rtol=1e-14)
    assert kind().bps_hz(0.0) == 0
    for share in (0.0, -1.0, 1.5, math.nan):
        with pytest.raises(ValueError, match="share"):
            kind(share=share)


def test_cqi_table_of_the_standard():
    published = [0.1523, 0.2344, 0.3770, 0.6016, 0.8770, 1.1758, 1.4766, 1.9141]
    published += [2.4063, 2.7305, 3.3223, 3.9023, 4.5234, 5.1152, 5.5547]
    # The standard rounds to four digits.
    ours = LinkAdaptation("cqi-64qam").nominal_bps_hz
    np.testing.assert_allclose(ours, published, rtol=0, atol=5.1e-5)


def test_mcs_table_of_the_standard():
    # TS 38.214, table 5.1.3.1-1: 29 schemes; the last of 16QAM delivers more than the first of
    # 64QAM, and the last of QPSK a little less than the first of 16QAM.
    nominal = LinkAdaptation().nominal_bps_hz
    assert nominal.size == 29
    published = [0.2344, 1.3262, 1.3281, 2.5703, 2.5664, 5.5547]
    np.testing.assert_allclose(nominal[[0, 9, 10, 16, 17, 28]], published, rtol=0, atol=5.1e-5)


@pytest.mark.parametrize("table", ["mcs-64qam", "cqi-64qam"])
def test_steps_are_between_nothing_and_capacity(table):
    adaptation = LinkAdaptation(table)
    efficiency = adaptation.bps_hz(SNR)
    assert (np.diff(efficiency) >= 0).all()
    assert (efficiency < Shannon(0.0).bps_hz(SNR)).all()
    threshold, level = adaptation.steps
    assert (np.diff(threshold) > 0).all()
    assert (np.diff(level) > 0).all()
    np.testing.assert_array_equal(adaptation.bps_hz(threshold), level)
    assert adaptation.bps_hz(threshold[0] * (1 - 1e-12)) == 0
    assert efficiency[-1] == pytest.approx(0.9 * 948 / 1024 * 6)


def test_finer_table_delivers_more():
    fine, coarse = LinkAdaptation(), LinkAdaptation("cqi-64qam")
    lowest = fine.threshold_db.min()
    above = lowest < SNR_DB
    # The report's lowest step, which no MCS of the table has, is below them all.
    assert (fine.bps_hz(SNR)[above] >= coarse.bps_hz(SNR)[above]).all()


def test_fewer_errors_cost_snr():
    tenth, hundredth = LinkAdaptation(), LinkAdaptation(block_error=0.01)
    shift = hundredth.threshold_db - tenth.threshold_db
    # Waterfalls of code blocks of thousands of bits are steep: a fraction of a decibel.
    assert (shift > 0.05).all()
    assert (shift < 0.6).all()
    # At high SNR fewer errors deliver more.
    assert hundredth.bps_hz(1e4) == pytest.approx(tenth.bps_hz(1e4) * 0.99 / 0.9)


def test_fit_follows_the_steps():
    # Midway between two steps; the tables behind the fit were 1.8 dB apart, hence 15 %.
    adaptation = LinkAdaptation()
    threshold, level = adaptation.steps
    middle = (threshold[3:-1] * threshold[4:]) ** 0.5
    np.testing.assert_allclose(level[3:-1], FittedNr().bps_hz(middle), rtol=0.15)


@pytest.mark.parametrize("bad", [0.0, 1e-4, 0.6, 1.0, math.nan])
def test_block_error_is_validated(bad):
    with pytest.raises(ValueError, match="block_error"):
        LinkAdaptation(block_error=bad)


def test_table_is_validated():
    with pytest.raises(ValueError, match="table must be one of"):
        LinkAdaptation("mcs-1024qam")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def sionna():
    """The parts of Sionna that simulate one code block."""
    pytest.importorskip("sionna")
    from sionna.phy import config
    from sionna.phy.channel import AWGN
    from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder
    from sionna.phy.mapping import BinarySource, Constellation, Demapper, Mapper

    config.seed = 42

    def failures(bits, rate, snr_db, blocks):
        import torch

        size = 3200
        sent = round(size / rate / bits) * bits
        encoder = LDPC5GEncoder(size, sent, num_bits_per_symbol=bits)
        decoder = LDPC5GDecoder(encoder, hard_out=True, num_iter=20)
        points = Constellation("qam", bits)
        noise = torch.tensor(10 ** (-snr_db / 10))
        with torch.no_grad():
            source = BinarySource()([blocks, size])
            received = AWGN()(Mapper(constellation=points)(encoder(source)), noise)
            soft = Demapper("app", constellation=points)(received, noise)
            return int((decoder(soft) != source).any(-1).sum())

    return failures


def test_thresholds_against_link_level_simulation(sionna):
    # 64QAM, rate 772/1024. Half a decibel below the threshold, two deviations of the waterfall,
    # eight blocks in ten fail; 0.3 above, one in a hundred. Failures are binomial: a count outside
    # the bounds below has a probability under 3e-3 each if the threshold is right, and the seed is
    # fixed.
    threshold = LinkAdaptation().threshold_db[24]
    assert sionna(6, 772 / 1024, threshold - 0.5, 20) >= 10
    assert sionna(6, 772 / 1024, threshold + 0.3, 20) <= 2
    assert 1 <= sionna(6, 772 / 1024, threshold, 60) <= 15


def test_thresholds_against_tables_of_sionna():
    # The tables that come with Sionna are 25/14 dB apart, so between the last point of more than
    # a tenth of errors and the first of less; its largest block, 2000 bits, is shorter than ours
    # and may need 0.2 dB more.
    import importlib.util
    import json
    from pathlib import Path

    found = importlib.util.find_spec("sionna")
    if found is None or found.submodule_search_locations is None:
        pytest.skip("no sionna")
    path = Path(found.submodule_search_locations[0]) / "sys/bler_tables/PDSCH_table1.json"
    table = json.loads(path.read_text())["category"]["1"]["index"]["1"]["MCS"]
    assert len(table) == 26
    threshold = LinkAdaptation().threshold_db
    for mcs, entry in table.items():
        snr_db, error = np.array(entry["SNR_db"]), np.array(entry["CBS"]["2000"]["BLER"])
        first = int(np.argmax(error < 0.1))
        assert snr_db[first - 1] - 0.3 < threshold[int(mcs)] < snr_db[first] + 0.1
