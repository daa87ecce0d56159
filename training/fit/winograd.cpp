// The four tile transforms of Winograd's F(4×4, 3×3); winograd.py says what they are for.
//
// Images are float [n, h, w, c] and tiles float [36, n · h/4 · w/4, c], both contiguous, so that
// neighbouring channels fill a vector register.

#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>

namespace {

constexpr int64_t STRIDE = 4, PATCH = 6, LANES = 8;

using Lanes = float __attribute__((vector_size(LANES * sizeof(float))));

// Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A for inputs d [6, 6], a filter g [3, 3] and outputs Y [4, 4]
// (Lavin and Gray, arXiv 1509.09308).
struct BT {
  static constexpr int rows = 6, columns = 6;
  static constexpr float at[rows][columns] = {{4, 0, -5, 0, 1, 0},  {0, -4, -4, 1, 1, 0},
                                              {0, 4, -4, -1, 1, 0}, {0, -2, -1, 2, 1, 0},
                                              {0, 2, -1, -2, 1, 0}, {0, 4, 0, -5, 0, 1}};
};
struct AT {
  static constexpr int rows = 4, columns = 6;
  static constexpr float at[rows][columns] = {
      {1, 1, 1, 1, 1, 0}, {0, 1, -1, 2, -2, 0}, {0, 1, 1, 4, 4, 0}, {0, 1, -1, 8, -8, 1}};
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

inline Lanes load(const float* from, int64_t lanes) {
  Lanes value{};
  if (lanes == LANES)
    std::memcpy(&value, from, sizeof value);
  else
    std::memcpy(&value, from, lanes * sizeof(float));
  return value;
}

inline void store(float* to, const Lanes& value, int64_t lanes) {
  if (lanes == LANES)
    std::memcpy(to, &value, sizeof value);
  else
    std::memcpy(to, &value, lanes * sizeof(float));
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
template <class M>
void gather(const at::Tensor& images, const at::Tensor& tiles) {
  constexpr int64_t size = M::columns, margin = (size - STRIDE) / 2;
  const int64_t n = images.size(0), h = images.size(1), w = images.size(2), c = images.size(3);
  const float* from = images.const_data_ptr<float>();
  float* to = tiles.mutable_data_ptr<float>();
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

// `gather` transposed: M x Mᵀ for each tile x, added up where the patches overlap.
template <class M>
void scatter(const at::Tensor& tiles, const at::Tensor& images) {
  constexpr int64_t size = M::rows, margin = (size - STRIDE) / 2;
  const int64_t n = images.size(0), h = images.size(1), w = images.size(2), c = images.size(3);
  const float* from = tiles.const_data_ptr<float>();
  float* to = images.mutable_data_ptr<float>();
  const int64_t plane = tiles.size(1) * c;
  each_tile(n, h, w, [&](int64_t image, int64_t top, int64_t left, int64_t tile) {
    // Patches overlap within an image only, and an image's tiles come in turn.
    if (margin && top == 0 && left == 0) std::fill_n(to + image * h * w * c, h * w * c, 0.0f);
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
          float* pixel = to + ((image * h + row) * w + column) * c + channel;
          store(pixel, margin ? load(pixel, lanes) + y[i * size + j] : y[i * size + j], lanes);
        }
    }
  });
}

}  // namespace

TORCH_LIBRARY(gradserve_winograd, m) {
  m.def("input(Tensor images, Tensor(a!) tiles) -> ()", &gather<BT>);
  m.def("output(Tensor tiles, Tensor(a!) images) -> ()", &scatter<AT>);
  m.def("output_gradient(Tensor images, Tensor(a!) tiles) -> ()", &gather<Transposed<AT>>);
  m.def("input_gradient(Tensor tiles, Tensor(a!) images) -> ()", &scatter<Transposed<BT>>);
}
