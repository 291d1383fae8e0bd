// The selective scan of mobtk/backbones/selective_scan.py, forward and backward, with all of a step in registers.
//
// Layouts are those of the python side, row-major float32: u, delta, y (B, L, D); A (D, N); B, C (B, L, N); h (B, D, N);
// skip (D); gate (B, L, D). Rows of the gate are `row` apart, those of B and C `narrow`, for they may be parts of something
// wider. Skip and gate may be null.
// A lane is a channel: 16 of them are worked on at once as GCC's (and clang's) vector type, which the compiler maps to
// whatever the processor has. Only one state every CHUNK steps is kept for the backward pass, which computes the others
// again. Sequences are independent and are shared out over threads.

#include <cstdint>
#include <cstring>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace {

constexpr int LANES = 16;
constexpr int CHUNK = 32;
constexpr int GROUP = 8;  // states whose gradients are held in registers at once
typedef float Lanes __attribute__((vector_size(LANES * 4)));
typedef int32_t Bits __attribute__((vector_size(LANES * 4)));
constexpr float LOG2E = 1.44269504088896341f;

inline __attribute__((always_inline)) Lanes splat(float x) { return x - Lanes{}; }

// `count` floats, the other lanes 0. A size that the compiler knows is a move, any other a call.
inline __attribute__((always_inline)) Lanes load(const float *from, int64_t count) {
    Lanes x{};
    if (count == LANES) std::memcpy(&x, from, sizeof x);
    else if (count == LANES / 2) std::memcpy(&x, from, sizeof x / 2);
    else std::memcpy(&x, from, count * sizeof(float));
    return x;
}

inline __attribute__((always_inline)) void store(float *to, Lanes x, int64_t count) {
    if (count == LANES) std::memcpy(to, &x, sizeof x);
    else if (count == LANES / 2) std::memcpy(to, &x, sizeof x / 2);
    else std::memcpy(to, &x, count * sizeof(float));
}

// 2^x to float32's last digits: the whole part goes into the exponent, the rest through a polynomial (Taylor's, on +-1/2).
inline __attribute__((always_inline)) Lanes exp2(Lanes x) {
    const float SHIFT = 12582912.0f;  // 1.5 * 2^23: adding it rounds to whole numbers
    x = x < -126.0f ? splat(-126.0f) : x;
    x = x > 126.0f ? splat(126.0f) : x;
    Lanes shifted = x + SHIFT;
    Bits whole;
    std::memcpy(&whole, &shifted, sizeof whole);
    Lanes f = x - (shifted - SHIFT);
    Lanes p = splat(1.5403530e-4f);
    p = p * f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    Bits bits;
    std::memcpy(&bits, &p, sizeof bits);
    bits += whole << 23;  // the bits of SHIFT above the whole number fall out on the left
    std::memcpy(&p, &bits, sizeof p);
    return p;
}

#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (Bits){__VA_ARGS__})
#endif

// The sum over lanes of each of GROUP vectors, in the first lanes of one: two are folded into one, three times over.
inline __attribute__((always_inline)) Lanes sums(const Lanes *x) {
    Lanes half[4], quarter[2];
    for (int i = 0; i < 4; ++i)
        half[i] = SHUFFLE(x[i], x[i + 4], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
                  SHUFFLE(x[i], x[i + 4], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    for (int i = 0; i < 2; ++i)
        quarter[i] = SHUFFLE(half[i], half[i + 2], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) +
                     SHUFFLE(half[i], half[i + 2], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
    Lanes pairs = SHUFFLE(quarter[0], quarter[1], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
                  SHUFFLE(quarter[0], quarter[1], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    return SHUFFLE(pairs, pairs, 0, 2, 4, 6, 8, 10, 12, 14, 0, 2, 4, 6, 8, 10, 12, 14) +
           SHUFFLE(pairs, pairs, 1, 3, 5, 7, 9, 11, 13, 15, 1, 3, 5, 7, 9, 11, 13, 15);
}

inline __attribute__((always_inline)) Lanes sigmoid(Lanes x) { return 1.0f / (1.0f + exp2(x * -LOG2E)); }

struct Shape {
    int64_t batch, steps, channels, blocks, chunks;
    int states;
};

// What a scan reads; `of` is that of one sequence.
struct Inputs {
    const float *u, *delta, *A, *B, *C, *h0, *skip, *gate;
    int64_t row, narrow;
    Inputs of(const Shape &s, int64_t b) const {
        int64_t rows = b * s.steps * s.channels, few = b * s.steps * narrow;
        return {u + rows, delta + rows, A, B + few, C + few, h0 ? h0 + b * s.channels * s.states : nullptr, skip,
                gate ? gate + b * s.steps * row : nullptr, row, narrow};
    }
};

Shape shape(int64_t batch, int64_t steps, int64_t channels, int64_t states) {
    return {batch, steps, channels, (channels + LANES - 1) / LANES, (steps + CHUNK - 1) / CHUNK, int(states)};
}

inline __attribute__((always_inline)) int64_t width(const Shape &s, int64_t block) {
    int64_t left = s.channels - block * LANES;
    return left < LANES ? left : LANES;
}

// Column-wise (state by state) lanes of a (D, N) matrix.
inline __attribute__((always_inline)) void gather(Lanes *to, const float *from, const Shape &s, int64_t block, const int N) {
    int64_t count = width(s, block);
    for (int n = 0; n < N; ++n) {
        to[n] = Lanes{};
        for (int64_t i = 0; i < count; ++i) to[n][i] = from[(block * LANES + i) * N + n];
    }
}

inline __attribute__((always_inline)) void scatter(float *to, const Lanes *from, const Shape &s, int64_t block, const int N) {
    int64_t count = width(s, block);
    for (int n = 0; n < N; ++n)
        for (int64_t i = 0; i < count; ++i) to[(block * LANES + i) * N + n] = from[n][i];
}

// One sequence and one block of channels, from the first step to the last.
inline __attribute__((always_inline)) void forward_block(
    const Shape &s, const int N, int64_t block, const Inputs &in_, float *y, float *last, Lanes *checkpoints, Lanes *h,
    Lanes *decay) {
    int64_t count = width(s, block), at = block * LANES;
    const float *B = in_.B, *C = in_.C;
    gather(decay, in_.A, s, block, N);
    for (int n = 0; n < N; ++n) decay[n] *= LOG2E;
    gather(h, in_.h0, s, block, N);
    Lanes skip = in_.skip ? load(in_.skip + at, count) : Lanes{};
    for (int64_t t = 0; t < s.steps; ++t) {
        if (checkpoints && t % CHUNK == 0) std::memcpy(checkpoints + t / CHUNK * N, h, N * sizeof(Lanes));
        Lanes d = load(in_.delta + t * s.channels + at, count), x = load(in_.u + t * s.channels + at, count);
        Lanes in = d * x, even = skip * x, odd{};
        int n = 0;
        for (; n + 1 < N; n += 2) {
            h[n] = exp2(d * decay[n]) * h[n] + in * B[t * in_.narrow + n];
            h[n + 1] = exp2(d * decay[n + 1]) * h[n + 1] + in * B[t * in_.narrow + n + 1];
            even += h[n] * C[t * in_.narrow + n];
            odd += h[n + 1] * C[t * in_.narrow + n + 1];
        }
        for (; n < N; ++n) {
            h[n] = exp2(d * decay[n]) * h[n] + in * B[t * in_.narrow + n];
            even += h[n] * C[t * in_.narrow + n];
        }
        Lanes out = even + odd;
        if (in_.gate) {
            Lanes gate = load(in_.gate + t * in_.row + at, count);
            out *= gate * sigmoid(gate);
        }
        store(y + t * s.channels + at, out, count);
    }
    scatter(last, h, s, block, N);
}

struct Gradients {
    const float *dy, *dlast;
    float *du, *ddelta, *dA, *dB, *dC, *dh0, *dskip, *dgate;
};

// Room of one thread for the backward pass: what is carried from chunk to chunk, and what is of one chunk and block.
struct Room {
    std::vector<Lanes> dh, dA, dskip;
    Lanes d[CHUNK], x[CHUNK], in[CHUNK], dy[CHUNK], y[CHUNK], into[CHUNK], rate[CHUNK];
    Lanes states[(CHUNK + 1) * GROUP], decays[CHUNK * GROUP];
    explicit Room(const Shape &s) : dh(s.blocks * s.states), dA(s.blocks * s.states), dskip(s.blocks) {}
};

// Some states of a chunk and a block of channels: forward from the kept one, then back. FIXED is their number, if known.
template <int FIXED>
inline __attribute__((always_inline)) void backward_states(
    int some, int64_t steps, const Lanes *A, const Lanes *kept, const float *B, const float *C, int64_t narrow, Lanes *to_dh,
    Lanes *to_dA, float *dB, float *dC, int64_t N, Room &room) {
    const int M = FIXED ? FIXED : some;
    Lanes dh[GROUP], dA[GROUP];
    {
        Lanes h[GROUP];
        for (int n = 0; n < M; ++n) room.states[n] = h[n] = kept[n];
        for (int64_t i = 0; i < steps; ++i) {
            for (int n = 0; n < M; ++n) {
                Lanes a = exp2(room.d[i] * (A[n] * LOG2E));
                room.decays[i * GROUP + n] = a;
                room.states[(i + 1) * GROUP + n] = h[n] = a * h[n] + room.in[i] * B[i * narrow + n];
            }
        }
    }
    for (int n = 0; n < M; ++n) dh[n] = to_dh[n], dA[n] = to_dA[n];
    for (int64_t i = steps - 1; i >= 0; --i) {
        Lanes d = room.d[i], in = room.in[i], dy = room.dy[i], y = room.y[i], into = room.into[i], rate = room.rate[i];
        Lanes of_B[GROUP]{}, of_C[GROUP]{};
        for (int n = 0; n < M; ++n) {
            Lanes h = room.states[(i + 1) * GROUP + n], c = splat(C[i * narrow + n]), b = splat(B[i * narrow + n]);
            y += h * c;
            Lanes now = dh[n] + dy * c;
            of_C[n] = dy * h;
            of_B[n] = now * in;
            into += now * b;
            now *= room.decays[i * GROUP + n];
            Lanes through = now * room.states[i * GROUP + n];
            rate += through * A[n];
            dA[n] += through * d;
            dh[n] = now;
        }
        room.y[i] = y, room.into[i] = into, room.rate[i] = rate;
        store(dB + i * N, load(dB + i * N, M) + sums(of_B), M), store(dC + i * N, load(dC + i * N, M) + sums(of_C), M);
    }
    for (int n = 0; n < M; ++n) to_dh[n] = dh[n], to_dA[n] = dA[n];
}

// One sequence: from the last chunk of steps to the first.
inline __attribute__((always_inline)) void backward_sequence(
    const Shape &s, const int N, const Inputs &in_, const Lanes *rates, const Lanes *checkpoints, const Gradients &g,
    Room &room) {
    for (int64_t block = 0; block < s.blocks; ++block) gather(&room.dh[block * N], g.dlast, s, block, N);
    for (int64_t chunk = s.chunks - 1; chunk >= 0; --chunk) {
        int64_t first = chunk * CHUNK, steps = s.steps - first < CHUNK ? s.steps - first : CHUNK;
        for (int64_t block = 0; block < s.blocks; ++block) {
            int64_t count = width(s, block), at = block * LANES;
            Lanes skip = in_.skip ? load(in_.skip + at, count) : Lanes{};
            for (int64_t i = 0; i < steps; ++i) {
                int64_t row = (first + i) * s.channels + at;
                room.d[i] = load(in_.delta + row, count), room.x[i] = load(in_.u + row, count);
                room.in[i] = room.d[i] * room.x[i], room.y[i] = skip * room.x[i];
                room.into[i] = room.rate[i] = Lanes{};
                room.dy[i] = load(g.dy + row, count);
                if (in_.gate) {
                    Lanes gate = load(in_.gate + (first + i) * in_.row + at, count);
                    room.dy[i] *= gate * sigmoid(gate);
                }
            }
            for (int n = 0; n < N; n += GROUP) {
                const Lanes *A = rates + block * N + n, *kept = checkpoints + (block * s.chunks + chunk) * N + n;
                const float *B = in_.B + first * in_.narrow + n, *C = in_.C + first * in_.narrow + n;
                Lanes *dh = &room.dh[block * N + n], *dA = &room.dA[block * N + n];
                float *dB = g.dB + first * N + n, *dC = g.dC + first * N + n;
                if (N - n >= GROUP)
                    backward_states<GROUP>(GROUP, steps, A, kept, B, C, in_.narrow, dh, dA, dB, dC, N, room);
                else
                    backward_states<0>(N - n, steps, A, kept, B, C, in_.narrow, dh, dA, dB, dC, N, room);
            }
            for (int64_t i = 0; i < steps; ++i) {
                int64_t row = (first + i) * s.channels + at;
                if (in_.gate) {
                    Lanes gate = load(in_.gate + (first + i) * in_.row + at, count), open = sigmoid(gate);
                    Lanes slope = open * (1.0f + gate * (1.0f - open));
                    store(g.dgate + row, load(g.dy + row, count) * room.y[i] * slope, count);
                }
                room.dskip[block] += room.dy[i] * room.x[i];
                store(g.du + row, room.into[i] * room.d[i] + skip * room.dy[i], count);
                store(g.ddelta + row, room.into[i] * room.x[i] + room.rate[i], count);
            }
        }
    }
    for (int64_t block = 0; block < s.blocks; ++block) scatter(g.dh0, &room.dh[block * N], s, block, N);
}

template <int FIXED>  // the number of states, where the compiler may know it
void forward(const Shape &s, const Inputs &in, float *y, float *last, float *kept, int threads) {
    const int N = FIXED ? FIXED : s.states;
    Lanes *checkpoints = reinterpret_cast<Lanes *>(kept);
    int64_t tasks = s.batch * s.blocks;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        std::vector<Lanes> room(2 * N);
#pragma omp for schedule(static)
        for (int64_t task = 0; task < tasks; ++task) {
            int64_t b = task / s.blocks;
            forward_block(s, N, task % s.blocks, in.of(s, b), y + b * s.steps * s.channels, last + b * s.channels * N,
                          checkpoints ? checkpoints + task * s.chunks * N : nullptr, room.data(), room.data() + N);
        }
    }
}

template <int FIXED>
void backward(const Shape &s, const Inputs &in, const float *kept, const Gradients &g, int threads) {
    const int N = FIXED ? FIXED : s.states;
    const Lanes *checkpoints = reinterpret_cast<const Lanes *>(kept);
    std::vector<Lanes> decays(s.blocks * N);
    for (int64_t block = 0; block < s.blocks; ++block) gather(&decays[block * N], in.A, s, block, N);
    std::vector<Room> rooms(threads, Room(s));  // one a thread, summed in order, so that a result can be had again
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t b = 0; b < s.batch; ++b) {
#ifdef _OPENMP
        Room &room = rooms[omp_get_thread_num()];
#else
        Room &room = rooms[0];
#endif
        int64_t rows = b * s.steps * s.channels, few = b * s.steps * N, states = b * s.channels * N;
        Gradients mine{g.dy + rows, g.dlast + states, g.du + rows,     g.ddelta + rows, nullptr,
                       g.dB + few,  g.dC + few,       g.dh0 + states, nullptr,         g.dgate ? g.dgate + rows : nullptr};
        backward_sequence(s, N, in.of(s, b), decays.data(), checkpoints + b * s.blocks * s.chunks * N, mine, room);
    }
    for (const Room &room : rooms)
        for (int64_t block = 0; block < s.blocks; ++block)
            for (int64_t i = 0; i < width(s, block); ++i) {
                for (int n = 0; n < N; ++n) g.dA[(block * LANES + i) * N + n] += room.dA[block * N + n][i];
                if (g.dskip) g.dskip[block * LANES + i] += room.dskip[block][i];
            }
}

}  // namespace

extern "C" {

// Floats that the states kept for the backward pass need; they begin at a multiple of 64 bytes.
int64_t mobtk_scan_kept(int64_t batch, int64_t steps, int64_t channels, int64_t states) {
    Shape s = shape(batch, steps, channels, states);
    return s.batch * s.blocks * s.chunks * s.states * LANES;
}

// `kept` may be null where there is no backward pass.
void mobtk_scan_forward(int64_t batch, int64_t steps, int64_t channels, int64_t states, const float *u, const float *delta,
                        const float *A, const float *B, const float *C, const float *h0, const float *skip,
                        const float *gate, int64_t row, int64_t narrow, float *y, float *last, float *kept, int threads) {
    Shape s = shape(batch, steps, channels, states);
    Inputs in{u, delta, A, B, C, h0, skip, gate, row, narrow};
    states == 16 ? forward<16>(s, in, y, last, kept, threads) : forward<0>(s, in, y, last, kept, threads);
}

// dA, dB, dC and dskip are added to and must be zero at first.
void mobtk_scan_backward(int64_t batch, int64_t steps, int64_t channels, int64_t states, const float *u,
                         const float *delta, const float *A, const float *B, const float *C, const float *skip,
                         const float *gate, int64_t row, int64_t narrow, const float *kept, const float *dy, const float *dlast, float *du,
                         float *ddelta, float *dA, float *dB, float *dC, float *dh0, float *dskip, float *dgate,
                         int threads) {
    Shape s = shape(batch, steps, channels, states);
    Inputs in{u, delta, A, B, C, nullptr, skip, gate, row, narrow};
    Gradients g{dy, dlast, du, ddelta, dA, dB, dC, dh0, dskip, dgate};
    states == 16 ? backward<16>(s, in, kept, g, threads) : backward<0>(s, in, kept, g, threads);
}

}  // extern "C"
