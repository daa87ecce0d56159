// The four tile transforms of Winograd's F(4×4, 3×3); winograd.py says what they are for.
//
// Images are [n, h, w, c] and tiles [36, n · h/4 · w/4, c], both contiguous, so that neighbouring
// channels fill a vector register. Both are of float or both of bfloat16, computed in float.

#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>

namespace {

constexpr int64_t STRIDE = 4, PATCH = 6;
#ifdef __AVX512F__
constexpr int64_t LANES = 16;
#else
constexpr int64_t LANES = 8;
#endif

using Lanes = float __attribute__((vector_size(LANES * sizeof(float))));
using Words = uint32_t __attribute__((vector_size(LANES * sizeof(uint32_t))));
using Halves = uint16_t __attribute__((vector_size(LANES * sizeof(uint16_t))));

// Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A for inputs d [6, 6], a filter g [3, 3] and outputs Y [4, 4]
// (Lavin and Gray, arXiv 1509.09308), with the points 0, ±a, ±2a and ∞.
constexpr float a = 2.0f / 3, a2 = a * a, a3 = a * a2, a4 = a * a3;
struct BT {
  static constexpr int rows = 6, columns = 6;
  static constexpr float at[rows][columns] = {
      {4 * a4, 0, -5 * a2, 0, 1, 0},         {0, -4 * a3, -4 * a2, a, 1, 0},
      {0, 4 * a3, -4 * a2, -a, 1, 0},        {0, -2 * a3, -a2, 2 * a, 1, 0},
      {0, 2 * a3, -a2, -2 * a, 1, 0},        {0, 4 * a4, 0, -5 * a2, 0, 1}};
};
struct AT {
  static constexpr int rows = 4, columns = 6;
  static constexpr float at[rows][columns] = {{1, 1, 1, 1, 1, 0},
                                              {0, a, -a, 2 * a, -2 * a, 0},
                                              {0, a2, a2, 4 * a2, 4 * a2, 0},
                                              {0, a3, -a3, 8 * a3, -8 * a3, 1}};
};
template <class M>
struct Transposed {
  static constexpr int rows = M::columns, columns = M::rows;
  struct Entries {
    constexpr auto operator[](int row) const {
      struct Row {
        int row;
        constexpr float operator[](int column) const { return M::at[column][row]; }
      };
      return Row{row};
    }
  };
  static constexpr Entries at{};
};

// M times x, for the element `Row` of the product; the zeros and ones of M cost nothing.
template <class M>
inline Lanes dot(int row, const Lanes* x, int step) {
  Lanes sum{};
  bool empty = true;
#pragma GCC unroll 6
  for (int k = 0; k < M::columns; ++k) {
    const float factor = M::at[row][k];
    if (factor == 0) continue;
    const Lanes term = factor == 1 ? x[k * step] : factor == -1 ? -x[k * step] : factor * x[k * step];
    sum = empty ? term : sum + term;
    empty = false;
  }
  return sum;
}

// y [rows, rows] = M x Mᵀ for x [columns, columns].
template <class M>
inline void both_sides(const Lanes* x, Lanes* y) {
  Lanes half[M::rows * M::columns];
#pragma GCC unroll 6
  for (int i = 0; i < M::rows; ++i)
#pragma GCC unroll 6
    for (int j = 0; j < M::columns; ++j) half[i * M::columns + j] = dot<M>(i, x + j, M::columns);
#pragma GCC unroll 6
  for (int i = 0; i < M::rows; ++i)
#pragma GCC unroll 6
    for (int j = 0; j < M::rows; ++j)
      y[i * M::rows + j] = dot<M>(j, half + i * M::columns, 1);
}

// A vector's first `lanes` elements, then zeros. Of a full one the compiler knows the size, which
// makes it one instruction.
template <class V>
inline V read(const void* from, int64_t lanes) {
  V value{};
  if (lanes == LANES)
    std::memcpy(&value, from, sizeof value);
  else
    std::memcpy(&value, from, lanes * sizeof value[0]);
  return value;
}

template <class V>
inline void write(void* to, const V& value, int64_t lanes) {
  if (lanes == LANES)
    std::memcpy(to, &value, sizeof value);
  else
    std::memcpy(to, &value, lanes * sizeof value[0]);
}

inline Lanes load(const float* from, int64_t lanes) { return read<Lanes>(from, lanes); }
inline void store(float* to, const Lanes& value, int64_t lanes) { write(to, value, lanes); }

// A bfloat16 is the upper half of a float.
inline Lanes load(const at::BFloat16* from, int64_t lanes) {
  return reinterpret_cast<Lanes>(__builtin_convertvector(read<Halves>(from, lanes), Words) << 16);
}

inline void store(at::BFloat16* to, const Lanes& value, int64_t lanes) {
  const Words bits = reinterpret_cast<Words>(value);
  const Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
  write(to, __builtin_convertvector(rounded, Halves), lanes);
}

// Calls f(image, row, column, tile) for each tile of images [n, h, w, c], images in parallel.
template <class F>
void each_tile(int64_t n, int64_t h, int64_t w, const F& f) {
  const int64_t rows = h / STRIDE, columns = w / STRIDE;
  at::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t image = begin; image < end; ++image)
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t column = 0; column < columns; ++column)
          f(image, row * STRIDE, column * STRIDE, (image * rows + row) * columns + column);
  });
}

// M x Mᵀ for the patch x around each tile: images [n, h, w, c] to tiles [36, n · h/4 · w/4, c].
template <class M, class T>
void gather_of(const at::Tensor& images, const at::Tensor& tiles) {
  constexpr int64_t size = M::columns, margin = (size - STRIDE) / 2;
  const int64_t n = images.size(0), h = images.size(1), w = images.size(2), c = images.size(3);
  const T* from = images.const_data_ptr<T>();
  T* to = tiles.mutable_data_ptr<T>();
  const int64_t plane = tiles.size(1) * c;
  each_tile(n, h, w, [&](int64_t image, int64_t top, int64_t left, int64_t tile) {
    for (int64_t channel = 0; channel < c; channel += LANES) {
      const int64_t lanes = std::min(LANES, c - channel);
      Lanes x[size * size], y[PATCH * PATCH];
      for (int64_t i = 0; i < size; ++i)
        for (int64_t j = 0; j < size; ++j) {
          const int64_t row = top + i - margin, column = left + j - margin;
          const bool inside = row >= 0 && row < h && column >= 0 && column < w;
          x[i * size + j] =
              inside ? load(from + ((image * h + row) * w + column) * c + channel, lanes) : Lanes{};
        }
      both_sides<M>(x, y);
      for (int64_t k = 0; k < PATCH * PATCH; ++k)
        store(to + k * plane + tile * c + channel, y[k], lanes);
    }
  });
}

// `gather_of` transposed: M x Mᵀ for each tile x, added up where the patches overlap.
template <class M, class T>
void scatter_of(const at::Tensor& tiles, const at::Tensor& images) {
  constexpr int64_t size = M::rows, margin = (size - STRIDE) / 2;
  const int64_t n = images.size(0), h = images.size(1), w = images.size(2), c = images.size(3);
  const T* from = tiles.const_data_ptr<T>();
  T* to = images.mutable_data_ptr<T>();
  const int64_t plane = tiles.size(1) * c;
  each_tile(n, h, w, [&](int64_t image, int64_t top, int64_t left, int64_t tile) {
    // Patches overlap within an image only, and an image's tiles come in turn.
    if (margin && top == 0 && left == 0) std::fill_n(to + image * h * w * c, h * w * c, T(0));
    for (int64_t channel = 0; channel < c; channel += LANES) {
      const int64_t lanes = std::min(LANES, c - channel);
      Lanes x[PATCH * PATCH], y[size * size];
      for (int64_t k = 0; k < PATCH * PATCH; ++k)
        x[k] = load(from + k * plane + tile * c + channel, lanes);
      both_sides<M>(x, y);
      for (int64_t i = 0; i < size; ++i)
        for (int64_t j = 0; j < size; ++j) {
          const int64_t row = top + i - margin, column = left + j - margin;
          if (row < 0 || row >= h || column < 0 || column >= w) continue;
          T* pixel = to + ((image * h + row) * w + column) * c + channel;
          store(pixel, margin ? load(pixel, lanes) + y[i * size + j] : y[i * size + j], lanes);
        }
    }
  });
}

template <class M>
void gather(const at::Tensor& images, const at::Tensor& tiles) {
  if (images.scalar_type() == at::kBFloat16)
    gather_of<M, at::BFloat16>(images, tiles);
  else
    gather_of<M, float>(images, tiles);
}

template <class M>
void scatter(const at::Tensor& tiles, const at::Tensor& images) {
  if (images.scalar_type() == at::kBFloat16)
    scatter_of<M, at::BFloat16>(tiles, images);
  else
    scatter_of<M, float>(tiles, images);
}

}  // namespace

TORCH_LIBRARY(gradserve_winograd, m) {
  m.def("input(Tensor images, Tensor(a!) tiles) -> ()", &gather<BT>);
  m.def("output(Tensor tiles, Tensor(a!) images) -> ()", &scatter<AT>);
  m.def("output_gradient(Tensor images, Tensor(a!) tiles) -> ()", &gather<Transposed<AT>>);
  m.def("input_gradient(Tensor tiles, Tensor(a!) images) -> ()", &scatter<Transposed<BT>>);
}
