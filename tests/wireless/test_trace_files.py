"""CSV files of traces: what they say, and every fault that is refused."""

import csv
import re

import numpy as np
import pytest

from wireless.trace_files import (
    read_availability_trace,
    read_bandwidth_trace,
    read_compute_trace,
    read_position_trace,
)


@pytest.fixture
def write(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "trace.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


def test_availability_is_read_in_any_order(write):
    path = write("time_s,device,available\n5,phone,0\n0,böard,1\n0,phone,1\n7.5,phone,1\n")
    trace = read_availability_trace(path, period_s=10)
    # "phone" appears first and is device 0.
    assert trace.value([0, 1, 2], [5, 5, 2]).tolist() == [0, 1, 1]
    assert trace.long_run_mean([0, 1]).tolist() == [0.75, 1]


def test_without_a_device_column_all_devices_follow_one_trace(write):
    trace = read_compute_trace(write("time_s,speed\n0,1\n10,0.5\n"))
    assert trace.value(np.arange(3), 12.0).tolist() == [0.5, 0.5, 0.5]


def test_bandwidth_delivers_hertz_seconds(write):
    trace = read_bandwidth_trace(write("time_s,bandwidth_hz\n0,1e6\n10,4e6\n"))
    assert trace.finish_s(7, 5.0, 9e6) == 11


def test_numbers_survive_a_file_to_the_last_bit(tmp_path):
    rng = np.random.default_rng(3)
    time = np.concatenate(([0.0], np.cumsum(rng.exponential(10.0, 199))))
    speed = rng.lognormal(size=200)
    path = tmp_path / "speed.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["time_s", "device", "speed"])
        writer.writerows(zip(time.tolist(), ['a, "b"'] * 200, speed.tolist(), strict=True))
    trace = read_compute_trace(path)
    assert np.array_equal(trace.time_s, time)
    assert np.array_equal(trace.level, speed)


def test_byte_order_mark_and_windows_line_ends_are_read(write):
    path = write("time_s,bandwidth_hz\r\n0,2e6\r\n", encoding="utf-8-sig")
    assert read_bandwidth_trace(path).value(0, 3.0) == 2e6


def test_positions_are_sorted_by_device_and_time(write):
    path = write("time_s,device,x_m,y_m\n9,b,1,2\n0,a,-3,4\n0,b,5,6\n")
    trace = read_position_trace(path)
    assert len(trace) == 2
    assert trace.device.tolist() == [0, 0, 1]
    assert trace.time_s.tolist() == [0, 9, 0]
    assert trace.x_m.tolist() == [5, 1, -3]
    assert trace.y_m.tolist() == [6, 2, 4]
    # "b" appears first and is device 0.
    np.testing.assert_allclose(trace.position_m([0, 1], 4.5), [[3, -3], [4, 4]])


HEAD = "time_s,device,available\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ", line 1: the header must be time_s,device,available or time_s,available, got ''"),
        ("device,time_s,available\n", ", line 1: the header must be time_s,device,available or "),
        ("0,a,1\n", ", line 1: the header must be time_s,device,available or time_s,available, "),
        (HEAD, ", line 2: no rows below the header; add at least one"),
        (HEAD + "0,a,1\n5,a\n", ", line 3: 3 values expected (time_s,device,available), got 2;"),
        (HEAD + "0,a,1\n\n5,a,0\n", ", line 3: 3 values expected (time_s,device,available), got 0"),
        (HEAD + '0,"a\nb",1\n', ", line 2: a line break inside a value; remove it"),
        (HEAD + '0,"a,1\n', ", line 2: unexpected end of data; correct the quotes"),
        (HEAD + "0,,1\n", ", line 2: device must be a name, got ''; fill it in"),
        (HEAD + "0,a,1\n5s,a,0\n", ", line 3: time_s must be a finite number, not negative, got "
         "'5s'; correct it"),
        (HEAD + "0,a,1\n-5,a,0\n", ", line 3: time_s must be a finite number, not negative, got "
         "'-5'; correct it"),
        (HEAD + "0,a,1\n5,a,0.5\n", ", line 3: available must be a finite number, that is 0 or 1, "
         "got '0.5'; correct it"),
        (HEAD + "0,a,1\n5,a,nan\n", ", line 3: available must be a finite number, that is 0 or 1, "
         "got 'nan'; correct it"),
        (HEAD + "0,a,1\n4,b,1\n", ", line 3: the first time_s of a device must be 0, got 4; add a "
         "row at time 0"),
        (HEAD + "0,a,1\n5,a,1\n0,b,1\n5,a,0\n", ", line 5: the same device has another row at "
         "time_s = 5; delete one of them"),
        (HEAD + "0,a,1\n99,a,0\n", ", line 3: time_s must be below period_s = 60, got 99; lengthen "
         "the period or delete the row"),
    ],
)  # fmt: skip
def test_faults_name_file_line_value_and_remedy(write, text, message):
    path = write(text)
    with pytest.raises(ValueError, match="^" + re.escape(f"{path}{message}")):
        read_availability_trace(path, period_s=60)


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (read_bandwidth_trace, "time_s,bandwidth_hz\n0,-1\n", "bandwidth_hz must be a finite"),
        (
            read_bandwidth_trace,
            "time_s,device,bandwidth_hz\n0,a,1\n",
            "the header must be time_s,b",
        ),
        (read_compute_trace, "time_s,speed\n0,inf\n", "speed must be a finite number, not negati"),
        (read_position_trace, "time_s,device,x_m,y_m\n0,a,1,\n", "y_m must be a finite number"),
        (read_position_trace, "time_s,device,x_m,y_m\n3,a,1,1\n", "the first time_s of a device"),
        (
            read_position_trace,
            "time_s,device,x_m,y_m\n0,a,1,1\n0,a,2,2\n",
            "the same device has another row at time_s = 0; delete one of them",
        ),
        (read_position_trace, "time_s,x_m,y_m\n0,1,1\n", "the header must be time_s,device,x_m,"),
    ],
)
def test_every_reader_refuses_faults(write, read, text, message):
    path = write(text)
    line = 1 if "header" in message else len(text.splitlines())
    with pytest.raises(ValueError, match="^" + re.escape(f"{path}, line {line}: {message}")):
        read(path)


def test_missing_and_unreadable_files_are_errors(tmp_path, write):
    path = tmp_path / "none.csv"
    for read in (
        read_availability_trace,
        read_bandwidth_trace,
        read_compute_trace,
        read_position_trace,
    ):
        with pytest.raises(FileNotFoundError, match=re.escape(f"{path}: no such file; correct")):
            read(path)
    path = write(HEAD + "0,ä,1\n", encoding="latin-1")
    with pytest.raises(ValueError, match=re.escape(f"{path}: not UTF-8")):
        read_availability_trace(path)
