"""Public datasets by name: what they are, under which licence, how to get them, and the command that reads them.

Nothing is fetched but on request, and nothing else of mobtk needs a network.
"""

import gzip
import hashlib
import shutil
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import msgspec
from msgspec import Struct
from tqdm import tqdm

from mobtk.errors import BadInput, first_line
from mobtk.storage import PathLike, fingerprint, new_file, write_text

LARGEST = 50 << 30
"""Bytes beyond which an archive is not unpacked."""


class Public(Struct, frozen=True, omit_defaults=True):
    """A public dataset.

    Args:
        title: what it is.
        licence: in short.
        terms: page where it is to be read.
        cite: who made it.
        then: the command that prepares it, where ``{}`` is what was fetched.
        url: of the file, where it may be fetched by a program.
        checksum: ``algorithm:hexadecimal``, where somebody published one.
        how: what to do where it may not.
    """

    title: str
    licence: str
    terms: str
    cite: str
    then: str
    url: str | None = None
    checksum: str | None = None
    how: str = ""


PUBLIC: dict[str, Public] = {
    "geolife": Public(
        "GeoLife 1.3: GPS tracks of 182 people, Beijing, 2007-2012, 24.9 million points",
        "Microsoft Research licence: not for commercial use",
        "https://www.microsoft.com/en-us/download/details.aspx?id=52367",
        "Zheng, Xie, Ma 2010, GeoLife: a collaborative social networking service among user, location and trajectory",
        "mobtk data prepare '{}/Geolife Trajectories 1.3/Data' -o geolife --timezone Asia/Shanghai --max-speed 300 "
        "--bounds=39.4,115.7,41.1,117.5 --period day",
        url="https://download.microsoft.com/download/F/4/8/F4894AA5-FDBC-481E-9285-D5F8C4C4F039/Geolife%20Trajectories%201.3.zip",
    ),
    "yjmob100k": Public(
        "YJMob100K, dataset 1: 100,000 people in a Japanese city, 75 days, half-hours, cells of 500 m",
        "CC BY 4.0",
        "https://doi.org/10.5281/zenodo.10836269",
        "Yabe, Tsubouchi, Shimizu, Sekimoto 2024, YJMob100K, Scientific Data 11, 397",
        "mobtk data prepare {}/yjmob100k-dataset1.csv -o yjmob100k --step 30min --set size=500 --coverage 0.25",
        url="https://zenodo.org/records/10836269/files/yjmob100k-dataset1.csv.gz",
        checksum="md5:3781f6f03a118b5f639bdb4f94dcfdb8",
    ),
    "gowalla": Public(
        "Gowalla check-ins, whole world, 2009-2010, 6.4 million",
        "none stated: public for research, by SNAP",
        "https://snap.stanford.edu/data/loc-Gowalla.html",
        "Cho, Myers, Leskovec 2011, Friendship and mobility, KDD",
        "mobtk data prepare {}/loc-gowalla_totalCheckins.txt -o gowalla --bounds=30.1,-98.0,30.6,-97.5 "
        "--timezone America/Chicago --step event --period 16 --mapper places --split time",
        url="https://snap.stanford.edu/data/loc-gowalla_totalCheckins.txt.gz",
    ),
    "brightkite": Public(
        "Brightkite check-ins, whole world, 2008-2010, 4.5 million",
        "none stated: public for research, by SNAP",
        "https://snap.stanford.edu/data/loc-Brightkite.html",
        "Cho, Myers, Leskovec 2011, Friendship and mobility, KDD",
        "mobtk data prepare {}/loc-brightkite_totalCheckins.txt -o brightkite --bounds=39.5,-105.2,40.0,-104.6 "
        "--timezone America/Denver --step event --period 16 --mapper places --split time",
        url="https://snap.stanford.edu/data/loc-brightkite_totalCheckins.txt.gz",
    ),
    "tsmc2014": Public(
        "Foursquare check-ins, New York and Tokyo, 2012-2013, 227,428 and 573,703",
        "for research, not to be passed on",
        "https://sites.google.com/site/yangdingqi/home/foursquare-dataset",
        "Yang, Zhang, Zheng, Yu 2015, Modeling user activity preference, IEEE Trans. SMC 45(1)",
        "mobtk data prepare {}/dataset_tsmc2014/dataset_TSMC2014_NYC.txt -o nyc --timezone America/New_York --step event "
        "--period 16 --mapper places --split time",
        url="http://www-public.imtbs-tsp.eu/~zhang_da/pub/dataset_tsmc2014.zip",
    ),
    "porto": Public(
        "Porto taxis: 442 taxis, a year, 1.7 million trips with a position every 15 s",
        "CC BY 4.0",
        "https://archive.ics.uci.edu/dataset/339",
        "Moreira-Matias et al. 2013, Predicting taxi-passenger demand using streaming data, IEEE Trans. ITS 14(3)",
        "mobtk data prepare {}/train.csv -o porto --timezone Europe/Lisbon --max-speed 200 "
        "--bounds=41.0,-8.8,41.3,-8.4 --period day",
        url="https://archive.ics.uci.edu/static/public/339/taxi+service+trajectory+prediction+challenge+ecml+pkdd+2015.zip",
        checksum="sha256:a33e2a5e145607ae2bad0db5d21b7548c88b7e0f9db1ce15839f24c4c61f8c76",
    ),
    "t-drive": Public(
        "T-Drive sample: 10,357 taxis of Beijing, a week of February 2008, 15 million points",
        "Microsoft Research licence: not for commercial use",
        "https://www.microsoft.com/en-us/research/publication/t-drive-trajectory-data-sample/",
        "Yuan et al. 2010, T-Drive: driving directions based on taxi trajectories, SIGSPATIAL",
        "mobtk data prepare {}/taxi_log_2008_by_id -o t-drive --timezone Asia/Shanghai --max-speed 200 "
        "--bounds=39.4,115.7,41.1,117.5 --period day",
        how="download its parts from the page and unpack them into one folder",
    ),
    "cabspotting": Public(
        "Cabspotting: 536 taxis of San Francisco, a month of 2008, 11 million points",
        "CRAWDAD terms: an account, and no passing on",
        "https://ieee-dataport.org/open-access/crawdad-epflmobility",
        "Piorkowski, Sarafijanovic-Djukic, Grossglauser 2009, CRAWDAD epfl/mobility",
        "mobtk data prepare '{}/new_*.txt' -o cabs --separator space --columns lat,lon,occupied,time --user @file "
        "--timezone America/Los_Angeles --max-speed 200",
        how="make an account at IEEE DataPort, download cabspottingdata.tar.gz and unpack it",
    ),
}


def find(name: str) -> Public:
    """A public dataset by its name."""
    if name not in PUBLIC:
        raise BadInput(f"no public dataset is called {name!r}; there are {', '.join(PUBLIC)}")
    return PUBLIC[name]


def fetch(name: str, out: PathLike, *, agree: bool = False, source: Public | None = None) -> str:
    """Fetch a public dataset into a folder, unpack it, and return the command that prepares it.

    An interrupted download goes on where it was. Where a checksum is published the file must have it; where none is, the
    SHA-256 of what came is written beside it, so that the next copy can be compared.

    Args:
        name: one of :data:`PUBLIC`.
        out: folder for the file and what is in it.
        agree: that the licence was read and is agreed to.
        source: the dataset itself, instead of a name.

    Raises:
        BadInput: it may not be fetched, the licence is not agreed to, or what came is not what was meant.
    """
    public = source or find(name)
    if public.url is None:
        raise BadInput(
            f"{name} cannot be fetched by a program: {public.how}, from {public.terms}; then: {public.then.format('.')}"
        )
    if not agree:
        raise BadInput(f"{name} is under this licence: {public.licence} ({public.terms}); read it, and agree with --agree")
    folder = Path(out)
    file = folder / urllib.request.url2pathname(public.url.rsplit("/", 1)[1].split("?")[0])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            _download(public.url, file, name)
        _verify(file, public.checksum)
    except urllib.error.URLError as error:
        raise BadInput(
            f"{public.url} cannot be fetched ({error.reason}); try again, it goes on where it stopped, or see {public.terms}"
        ) from None
    except OSError as error:
        raise BadInput(f"{file} cannot be fetched: {first_line(error)}; try again, it goes on where it stopped") from None
    try:
        if file.suffix == ".zip":
            _unpack(file, folder)
        elif file.suffix == ".gz":
            with gzip.open(file) as packed, new_file(file.with_suffix("")) as draft, draft.open("wb") as sink:
                shutil.copyfileobj(packed, sink)
    except (zipfile.BadZipFile, EOFError, gzip.BadGzipFile) as error:
        raise BadInput(f"{file} is no whole archive: {first_line(error)}; remove it and fetch it again") from None
    write_text(
        folder / "SOURCE.json",
        msgspec.json.format(msgspec.json.encode({"name": name, **msgspec.to_builtins(public)})).decode(),
    )
    return public.then.format(folder)


def _download(url: str, file: Path, name: str) -> None:
    part = file.with_name(file.name + ".part")
    begin = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={begin}-"} if begin else {})
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        part.replace(file)  # all of it was there
        return
    with answer:
        if answer.status != 206:
            begin = 0
        length = answer.headers.get("Content-Length")
        total = begin + int(length) if length else None
        with (
            part.open("ab" if begin else "wb") as sink,
            tqdm(total=total, initial=begin, desc=name, unit="B", unit_scale=True, delay=2) as bar,
        ):
            while block := answer.read(1 << 20):
                sink.write(block)
                bar.update(len(block))
    if total is not None and part.stat().st_size != total:
        raise OSError(f"{part.stat().st_size:,} of {total:,} bytes came")
    part.replace(file)


def _verify(file: Path, checksum: str | None) -> None:
    beside = file.with_name(file.name + ".sha256")
    if checksum is None:
        found = fingerprint(file)
        if not beside.exists():
            write_text(beside, f"{found}  {file.name}\n")
        elif beside.read_text().split()[0] != found:
            raise BadInput(f"{file} is not as it was when it came (see {beside.name}); remove both and fetch it again")
        return
    algorithm, _, wanted = checksum.partition(":")
    with file.open("rb") as source:
        found = hashlib.file_digest(source, algorithm).hexdigest()
    if found != wanted:
        raise BadInput(f"{file} has the {algorithm} {found}, and {wanted} was published; remove it and fetch it again")


def _unpack(file: Path, folder: Path) -> None:
    """What is in an archive, and in archives in it, unless names lead elsewhere or it is too much."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        total = sum(m.file_size for m in members)
        free = shutil.disk_usage(folder).free
        if total > min(LARGEST, free):
            raise BadInput(f"{file} holds {total:,} bytes, more than there is room for ({min(LARGEST, free):,})")
        for member in members:
            if not (folder / member.filename).resolve().is_relative_to(folder.resolve()):
                raise BadInput(f"{file} holds a file that would land outside of {folder}: {member.filename!r}")
        archive.extractall(folder)
    for member in members:
        if member.filename.endswith(".zip"):
            _unpack(folder / member.filename, (folder / member.filename).parent)
