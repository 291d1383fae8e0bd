# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 1. Metres before models
#
# A position is two angles. Errors, speeds and distances are metres. Before any model: turn one into the other, look at
# what you have, and ask of each number whether it can be true.

# %%
import matplotlib.pyplot as plt
import numpy as np
from course import BLUE, ORANGE, finish, walks

tracks = list(walks(max_speed=None))  # as measured
one = tracks[0]
print(f"{len(tracks)} tracks; the first has {len(one)} points, from {one.lat[0]:.5f}, {one.lon[0]:.5f}")

# %% [markdown]
# On a sphere of radius $R$ the distance between two points is the haversine: with $a = \sin^2(\Delta\varphi/2) +
# \cos\varphi_1 \cos\varphi_2 \sin^2(\Delta\lambda/2)$ it is $2R\arcsin\sqrt a$. A degree of latitude is always about 111
# km; a degree of longitude is that times the cosine of the latitude.


# %%
def haversine(lat1, lon1, lat2, lon2, radius=6_371_000.0):
    p1, p2 = np.radians(lat1), np.radians(lat2)
    a = np.sin((p2 - p1) / 2) ** 2 + np.cos(p1) * np.cos(p2) * np.sin(np.radians(lon2 - lon1) / 2) ** 2
    return 2 * radius * np.arcsin(np.sqrt(a))


for lat in (0.0, 40.0, 60.0):
    print(f"at {lat:2.0f} degrees north a degree of longitude is {haversine(lat, 0, lat, 1) / 1000:5.1f} km")
print(
    f"swap latitude and longitude of Copenhagen, and you are {haversine(55.7, 12.6, 12.6, 55.7) / 1e6:.1f} thousand km off"
)

# %% [markdown]
# Speeds tell people on foot from people in cars, and both from errors of measurement. Look at the fastest step first: one
# clock that jumped outweighs a thousand good points in any mean. From here on the course leaves out what needs more than
# 200 km/h (`mobtk data trajectories --max-speed 200` says how much that is).


# %%
def speed(track):
    step = haversine(track.lat[:-1], track.lon[:-1], track.lat[1:], track.lon[1:])
    return step / (np.diff(track.time) / 1e6) * 3.6


median = np.array([np.median(speed(t)) for t in tracks])
walking = median < 10
print(f"{walking.sum()} tracks look like walks, {(~walking).sum()} like drives; the fastest step is "
      f"{max(speed(t).max() for t in tracks):.0f} km/h")  # fmt: skip

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
for track, foot in list(zip(tracks, walking, strict=True))[:60]:
    north = haversine(track.lat[0], track.lon[0], track.lat, track.lon[0]) * np.sign(track.lat - track.lat[0])
    east = haversine(track.lat[0], track.lon[0], track.lat[0], track.lon) * np.sign(track.lon - track.lon[0])
    left.plot(east, north, color=BLUE if foot else ORANGE, linewidth=0.7)
left.set(xlabel="metres east", ylabel="metres north", aspect="equal", title="60 tracks from where they begin")
right.hist([median[walking], median[~walking]], bins=np.geomspace(0.3, 120, 40), stacked=True, color=[BLUE, ORANGE],
           label=["on foot", "by car"])  # fmt: skip
right.set(xscale="log", xlabel="median speed, km/h", ylabel="tracks")
right.legend(frameon=False)
figure.tight_layout()

# %% [markdown]
# **Quick check.** *Do points survive being told as numbers?* In float64, yes (`mobtk experiment run trajfm/codec`). As
# float32, where places and dates are real, metres from the equator come back to a quarter of a metre and seconds since
# 1970 only to 64 s: take differences first. *Are steps bounded?* Look before you choose a scale for them:
# `mobtk experiment run trajfm/deltas`.
#
# **Exercise 1.** Write `median_speed(lat, lon, seconds)` in km/h (`exercises.py`; `python docs/learn/check.py 1` checks
# it).

# %%
finish(np.median(median[walking]), "km/h: the median speed of a walk", figure)
