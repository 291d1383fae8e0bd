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
constexpr int CHUNK = 16;
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

// Sum over lanes of `rows` vectors, added to `to`.
inline __attribute__((always_inline)) void add_sums(float *to, const Lanes *from, int rows) {
    for (int i = 0; i < rows; ++i) {
        float parts[LANES];
        std::memcpy(parts, &from[i], sizeof parts);
        for (int width = LANES / 2; width; width /= 2)
            for (int j = 0; j < width; ++j) parts[j] += parts[j + width];
        to[i] += parts[0];
    }
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

// Room of one thread for the backward pass.
struct Room {
    std::vector<Lanes> dh, dA, states, decays, dB, dC, dskip;
    explicit Room(const Shape &s)
        : dh(s.blocks * s.states), dA(s.blocks * s.states), states((CHUNK + 1) * s.states), decays(CHUNK * s.states),
          dB(CHUNK * s.states), dC(CHUNK * s.states), dskip(s.blocks) {}
};

// One sequence: from the last chunk of steps to the first, all blocks of channels of a chunk together, so that the
// gradients of B and C, which all channels share, are summed over lanes once a chunk.
inline __attribute__((always_inline)) void backward_sequence(
    const Shape &s, const int N, const Inputs &in_, const Lanes *rates, const Lanes *checkpoints, const Gradients &g,
    Room &room) {
    const float *u = in_.u, *delta = in_.delta, *B = in_.B, *C = in_.C;
    for (int64_t block = 0; block < s.blocks; ++block) gather(&room.dh[block * N], g.dlast, s, block, N);
    for (int64_t chunk = s.chunks - 1; chunk >= 0; --chunk) {
        int64_t first = chunk * CHUNK, steps = s.steps - first < CHUNK ? s.steps - first : CHUNK;
        std::memset(static_cast<void *>(room.dB.data()), 0, steps * N * sizeof(Lanes));
        std::memset(static_cast<void *>(room.dC.data()), 0, steps * N * sizeof(Lanes));
        for (int64_t block = 0; block < s.blocks; ++block) {
            int64_t count = width(s, block), at = block * LANES;
            const Lanes *A = rates + block * N;
            Lanes skip = in_.skip ? load(in_.skip + at, count) : Lanes{};
            Lanes *dh = &room.dh[block * N], *dA = &room.dA[block * N];
            Lanes *states = room.states.data(), *decays = room.decays.data();
            std::memcpy(states, checkpoints + (block * s.chunks + chunk) * N, N * sizeof(Lanes));
            for (int64_t i = 0; i < steps; ++i) {
                Lanes d = load(delta + (first + i) * s.channels + at, count);
                Lanes in = d * load(u + (first + i) * s.channels + at, count);
                for (int n = 0; n < N; ++n) {
                    Lanes a = exp2(d * (A[n] * LOG2E));
                    decays[i * N + n] = a;
                    states[(i + 1) * N + n] = a * states[i * N + n] + in * B[(first + i) * in_.narrow + n];
                }
            }
            for (int64_t i = steps - 1; i >= 0; --i) {
                int64_t t = first + i;
                Lanes d = load(delta + t * s.channels + at, count), x = load(u + t * s.channels + at, count);
                Lanes given = load(g.dy + t * s.channels + at, count), dy = given, in = d * x;
                Lanes gate{}, open{}, y = skip * x;  // y as it was before the gate
                if (in_.gate) {
                    gate = load(in_.gate + t * in_.row + at, count);
                    open = sigmoid(gate);
                    dy *= gate * open;
                }
                Lanes into{}, rate{};  // gradients of d * x and of d through the decay
                for (int n = 0; n < N; ++n) {
                    y += states[(i + 1) * N + n] * C[t * in_.narrow + n];
                    Lanes now = dh[n] + dy * C[t * in_.narrow + n];
                    room.dC[i * N + n] += dy * states[(i + 1) * N + n];
                    room.dB[i * N + n] += now * in;
                    into += now * B[t * in_.narrow + n];
                    now *= decays[i * N + n];
                    Lanes through = now * states[i * N + n];
                    rate += through * A[n];
                    dA[n] += through * d;
                    dh[n] = now;
                }
                if (in_.gate)
                    store(g.dgate + t * s.channels + at, given * y * open * (1.0f + gate * (1.0f - open)), count);
                room.dskip[block] += dy * x;
                store(g.du + t * s.channels + at, into * d + skip * dy, count);
                store(g.ddelta + t * s.channels + at, into * x + rate, count);
            }
        }
        add_sums(g.dB + first * N, room.dB.data(), int(steps) * N);
        add_sums(g.dC + first * N, room.dC.data(), int(steps) * N);
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
