"""ISMRMRD raw data as k-space: readouts with a header each, and an XML header of the scan, in HDF5.

The encoding limits say in which row a readout of `kspace_encode_step_1` lies; its centre sample is
in the middle column. Averages are averaged. Readouts that are not of the image (noise, navigators,
…) are left out. An encoded matrix that is wider than the reconstructed one is readout oversampling:
k becomes F crop(F⁻¹ k) along the rows, which needs whole readouts.

Source: Inati et al., MRM 2017 (ISMRM raw data format).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from xml.etree import ElementTree as Xml

import h5py
import numpy as np
from numpy.typing import NDArray

from csrecon.errors import InputError

_NOISE, _CALIBRATION, _REVERSE = 19, 20, 22  # numbers of flags, from 1
_OTHERS = (_NOISE, 23, 24, 26, 27, 28, 29, 30, 31)  # navigators, phase correction, feedback, …
_SINGLE = ("contrast", "phase", "repetition", "set")
_HEAD = (
    "flags",
    "number_of_samples",
    "active_channels",
    "discard_pre",
    "discard_post",
    "center_sample",
    "encoding_space_ref",
    "position",
    "slice_dir",
    "idx",
)
_LONGEST_XML = 2**22
_EVEN = 0.01  # relative deviation of the distances of slices

Notice = Callable[[str], None]
_Number = TypeVar("_Number", int, float)


def group(file: h5py.File) -> h5py.Group | None:
    """The group with `xml` and `data` of an ISMRMRD file; None in other HDF5 files.

    Raises:
        InputError: several of them.
    """
    found = []
    for name in file:
        hard = isinstance(name, str) and isinstance(file.get(name, getlink=True), h5py.HardLink)
        item = file[name] if hard else None
        if isinstance(item, h5py.Group) and all(
            isinstance(item.get(key, getlink=True), h5py.HardLink)
            and isinstance(item[key], h5py.Dataset)
            for key in ("xml", "data")
        ):
            found.append(item)
    if len(found) > 1:
        names = ", ".join(item.name.strip("/") for item in found)
        raise InputError(f"several ISMRMRD scans in one file ({names}); save one alone.")
    return found[0] if found else None


@dataclass(frozen=True)
class _Encoding:
    """What the XML header says of an encoding space.

    Attributes:
        trajectory: cartesian, or another word.
        encoded, recon: sizes (x, y, z) of the matrices.
        fov: of the encoded matrix in mm, (x, y, z).
        middle: the encoding step of the middle row; None if it is not said.
        embedded: whether calibration readouts are rows of the same k-space.
    """

    trajectory: str
    encoded: tuple[int, int, int]
    recon: tuple[int, int, int]
    fov: tuple[float, float, float]
    middle: int | None
    embedded: bool


def _text(parent: Xml.Element, path: str) -> str | None:
    return parent.findtext("/".join(f"{{*}}{name}" for name in path.split("/")))


def _triple(
    parent: Xml.Element, path: str, kind: Callable[[str], _Number]
) -> tuple[_Number, _Number, _Number]:
    """The numbers x, y and z below a path."""
    x, y, z = (kind(_text(parent, f"{path}/{axis}") or "") for axis in "xyz")
    return x, y, z


def _encodings(text: bytes) -> list[_Encoding]:
    """The encoding spaces of an XML header."""
    found = []
    try:
        for one in Xml.fromstring(text[:_LONGEST_XML]).iterfind("{*}encoding"):
            middle = _text(one, "encodingLimits/kspace_encoding_step_1/center")
            mode = _text(one, "parallelImaging/calibrationMode")
            found.append(
                _Encoding(
                    (_text(one, "trajectory") or "").strip().lower(),
                    _triple(one, "encodedSpace/matrixSize", int),
                    _triple(one, "reconSpace/matrixSize", int),
                    _triple(one, "encodedSpace/fieldOfView_mm", float),
                    None if middle is None else int(middle),
                    (mode or "").strip().lower() == "embedded",
                )
            )
    except (Xml.ParseError, ValueError) as error:
        raise InputError(f"the XML header of ISMRMRD is damaged ({error}).") from error
    if not found:
        raise InputError("the XML header of ISMRMRD describes no encoding.")
    return found


class Raw:
    """The readouts of one image per slice.

    Args:
        scan: as found by `group`.
        notice: takes sentences on what is left out.

    Raises:
        InputError: anything but Cartesian 2-D k-space of one image per slice, or damaged.
    """

    def __init__(self, scan: h5py.Group, notice: Notice) -> None:
        data, xml = scan["data"], scan["xml"]
        names = data.dtype.names or ()
        heads = data.dtype["head"].names or () if "head" in names else ()
        plain = not any(item.is_virtual or item.external for item in (data, xml))
        if not {"head", "data"} <= set(names) or not set(_HEAD) <= set(heads) or not plain:
            raise InputError("`data` and `xml` have not the layout of ISMRMRD.")
        text = np.ravel(xml[()])[0]
        encodings = _encodings(text if isinstance(text, bytes) else str(text).encode())
        self._data = data
        self._notice = notice
        self.heads: NDArray[Any] = np.ravel(data.fields("head")[()])
        refs = np.unique(self.heads["encoding_space_ref"][~self._flagged(*_OTHERS)])
        self.encoding = encodings[min(int(refs[0]) if len(refs) else 0, len(encodings) - 1)]
        left_out = self._flagged(*_OTHERS)
        if not self.encoding.embedded:
            left_out |= self._flagged(_CALIBRATION)
        self.used: list[int] = np.flatnonzero(~left_out).tolist()
        self.left_out = int(left_out.sum())
        self._check()

    def _flagged(self, *numbers: int) -> NDArray[np.bool_]:
        bits = sum(1 << (number - 1) for number in numbers)
        return np.asarray((self.heads["flags"].astype(np.uint64) & np.uint64(bits)) != 0)

    def _check(self) -> None:
        encoding, heads = self.encoding, self.heads[self.used]
        width, height, depth = encoding.encoded
        if encoding.trajectory != "cartesian":
            raise InputError(
                f"trajectory {encoding.trajectory or 'not said'!r}: only Cartesian k-space is "
                "read. Grid it first (BART's `nufft -a` and `fft`), and give .cfl or .npy."
            )
        if depth != 1 or heads["idx"]["kspace_encode_step_2"].any():
            raise InputError(
                f"3-D k-space (encoded matrix {width}×{height}×{depth}): slices are read. "
                "Transform along the third axis first, and give .cfl or .npy."
            )
        if not len(heads):
            raise InputError(f"no readout of an image; {self.left_out} of other kinds.")
        if min(encoding.encoded + encoding.recon) < 1:
            raise InputError(f"encoded matrix {encoding.encoded}: expected positive sizes.")
        if len(np.unique(heads["encoding_space_ref"])) > 1:
            raise InputError("readouts of several encoding spaces; save those of one alone.")
        if self._flagged(_REVERSE)[self.used].any():
            raise InputError(
                "reversed readouts (EPI), which need a phase correction, are not read."
            )
        for name in _SINGLE:
            if (count := len(np.unique(heads["idx"][name]))) > 1:
                raise InputError(
                    f"{count} values of `{name}`, and one image per slice is read. Save one of "
                    "them alone."
                )
        if len(coils := np.unique(heads["active_channels"])) > 1 or not coils[0]:
            raise InputError(f"the coils disagree: readouts of {coils.tolist()} channels.")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(slices, coils, H, W) with the readout as it was encoded."""
        width, height, _ = self.encoding.encoded
        slices = len(np.unique(self.heads["idx"]["slice"][self.used]))
        return slices, int(self.heads["active_channels"][self.used[0]]), height, width

    def kspace(self) -> NDArray[np.complex64]:
        """K-space (slices, coils, H, W), zero frequency in the middle, zeros where not measured.

        Raises:
            InputError: a readout that does not fit the encoded matrix.
        """
        slices, coils, height, width = self.shape
        total = np.zeros((slices, coils, height, width), np.complex64)
        count = np.zeros((slices, 1, height, width), np.int32)
        places = {int(s): i for i, s in enumerate(np.unique(self.heads["idx"]["slice"][self.used]))}
        whole = True
        for index in self.used:
            head, values = self.heads[index], self._data[index]["data"]
            samples = int(head["number_of_samples"])
            if values.size != 2 * coils * samples:
                raise InputError(
                    f"readout {index}: {values.size} numbers, not {2 * coils * samples}."
                )
            row, first, last = self._place(index)
            line = np.ascontiguousarray(values, np.float32).view(np.complex64)
            line = line.reshape(coils, samples)
            kept = line[:, int(head["discard_pre"]) : samples - int(head["discard_post"])]
            part = places[int(head["idx"]["slice"])], slice(None), row, slice(first, last)
            total[part] += kept
            count[part] += 1
            whole &= (first, last) == (0, width)
        if self.left_out:
            self._notice(f"{self.left_out} readouts of noise, calibration or navigators left out.")
        values = (total / np.maximum(count, 1)).astype(np.complex64)
        return self._cropped(values, whole)

    def _place(self, index: int) -> tuple[int, int, int]:
        """Row, first column and the end of the columns of a readout."""
        head, middle = self.heads[index], self.encoding.middle
        width, height, _ = self.encoding.encoded
        step, samples = int(head["idx"]["kspace_encode_step_1"]), int(head["number_of_samples"])
        row = step if middle is None else step - middle + height // 2
        begin = width // 2 - int(head["center_sample"])
        first, last = begin + int(head["discard_pre"]), begin + samples - int(head["discard_post"])
        if not (0 <= row < height and 0 <= first < last <= width):
            raise InputError(
                f"readout {index}: {samples} samples with their centre at {head['center_sample']}, "
                f"in row {row}: outside of the encoded matrix of {height} rows × {width} samples."
            )
        return row, first, last

    def _cropped(self, values: NDArray[np.complex64], whole: bool) -> NDArray[np.complex64]:
        """Without readout oversampling, if readouts are whole."""
        width, kept = self.encoding.encoded[0], self.encoding.recon[0]
        if kept >= width:
            return values
        if not whole:
            self._notice(
                f"partial readouts keep their oversampling: images have {width} columns, of which "
                f"the middle {kept} are those of the reconstruction matrix."
            )
            return values
        lines = np.fft.ifft(np.fft.ifftshift(values, axes=-1), norm="ortho")
        begin = width // 2 - kept // 2
        lines = np.fft.fftshift(lines, axes=-1)[..., begin : begin + kept]
        made = np.fft.fft(np.fft.ifftshift(lines, axes=-1), norm="ortho")
        return np.fft.fftshift(made, axes=-1).astype(np.complex64)

    def voxel(self) -> NDArray[np.float64] | None:
        """Distances in mm from slice to slice, row to row and column to column; None if unknown.

        That of slices is the one of their positions, or else their thickness.
        """
        (width, height, _), fov = self.encoding.encoded, self.encoding.fov
        heads = self.heads[self.used]
        first = np.unique(heads["idx"]["slice"], return_index=True)[1]
        apart, along = np.diff(heads["position"][first], axis=0), heads["slice_dir"][first[0]]
        steps, distance = np.abs(apart @ along), fov[2]
        if len(steps) and steps.min() > (1 - _EVEN) * steps.max() > 0:
            distance = float(steps.mean())
        found = np.array([distance, fov[1] / height, fov[0] / width])
        return found if np.isfinite(found).all() and found.min() > 0 else None
