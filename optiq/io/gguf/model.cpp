#include "optiq/io/gguf/model.h"

#include <algorithm>
#include <cstring>

#include <mlx/ops.h>

#include "optiq/artifacts/module_id.h"
#include "optiq/base/error.h"
#include "optiq/io/array.h"
#include "optiq/io/gguf/dequantize.h"
#include "optiq/io/gguf/sentencepiece.h"
#include "optiq/io/gguf/tokenizer.h"

namespace optiq::io {
namespace {

bool is_plain(GgufType type) {
  return block_elements(type) == 1;
}

bool is_norm(const std::string& tensor) {
  const artifacts::ModuleRole role = artifacts::module_of(tensor).role;
  return artifacts::kind_of(role) == artifacts::ModuleKind::Norm;
}

mx::Dtype dtype_of(GgufType type) {
  return type == GgufType::F16 ? mx::float16
      : type == GgufType::BF16 ? mx::bfloat16
                               : mx::float32;
}

/** What a model made from this file holds: the embeddings' dtype, and float16
 * (as the scales of most quantized types) where they are quantized. */
mx::Dtype dtype_to_convert(const GgufFile& file) {
  for (const GgufTensor& tensor : file.tensors()) {
    if (tensor.name == "token_embd.weight" && is_plain(tensor.type)) {
      return dtype_of(tensor.type);
    }
  }
  return mx::float16;
}

// Values of a matrix that are there in float32 at once: 4 MB.
constexpr int kRoundedAtOnce = 1 << 20;

/** A bias whose rows the file stores interleaved, in order. */
mx::array in_order(const mx::array& stored, int head_dim) {
  mx::array values = make_array(stored.shape(), mx::float32);
  const std::span<const float> from = floats(stored);
  const std::span<float> to = mutable_floats(values);
  const auto half = static_cast<std::size_t>(head_dim / 2);
  for (std::size_t i = 0; i < from.size(); ++i) {
    const std::size_t row = i % (2 * half);
    to[i - row + row % 2 * half + row / 2] = from[i];
  }
  return values;
}

mx::array subtract_one(mx::array values) {
  for (float& value : mutable_floats(values)) {
    value -= 1.f;
  }
  return values;
}

} // namespace

std::shared_ptr<const GgufModel> GgufModel::open(
    const std::filesystem::path& path,
    QuantizedForm form) {
  return std::shared_ptr<const GgufModel>(
      new GgufModel(GgufFile::open(path), form));
}

GgufModel::GgufModel(GgufFile file, QuantizedForm form)
    : file_(std::move(file)),
      form_(form),
      dtype_(dtype_to_convert(file_)),
      architecture_(gguf_architecture(file_)),
      config_(gguf_config(file_, architecture_)) {
  for (std::size_t i = 0; i < file_.tensors().size(); ++i) {
    add_tensor(i, form);
  }
}

/** The head_dim of rows, of a matrix or a bias, that the file stores
 * interleaved, else 0. */
int GgufModel::head_dim_of(const GgufTensor& tensor, const std::string& name)
    const {
  const artifacts::ModuleRole role = artifacts::module_of(name).role;
  const bool is_query = role == artifacts::ModuleRole::Query;
  const bool is_key = role == artifacts::ModuleRole::Key;
  if (!architecture_.interleaved_heads || !(is_query || is_key)) {
    return 0;
  }
  const int n_heads =
      is_query ? architecture_.n_heads : architecture_.n_kv_heads;
  if (tensor.shape.size() > 2 ||
      tensor.shape[0] != std::int64_t{n_heads} * architecture_.head_dim) {
    fail(
        ErrorKind::Corrupt,
        "[GgufModel] {}: tensor '{}': found {} rows, expected {} heads of {}",
        file_.path().string(),
        tensor.name,
        tensor.shape[0],
        n_heads,
        architecture_.head_dim);
  }
  return architecture_.head_dim;
}

void GgufModel::add_tensor(std::size_t index, QuantizedForm form) {
  const GgufTensor& tensor = file_.tensors()[index];
  const auto name = hf_tensor_name(file_, architecture_, tensor.name);
  if (!name) {
    return;
  }
  const Source source{
      .tensor = index,
      .head_dim = head_dim_of(tensor, *name),
      .shifted = architecture_.shifted_norms && is_norm(*name)};
  if (form == QuantizedForm::Affine && tensor.shape.size() == 2 &&
      affine_form(tensor.type)) {
    add_affine(index, *name, source);
    return;
  }
  const bool is_turned_bias = source.head_dim != 0 && tensor.shape.size() == 1;
  infos_.push_back(
      {.name = *name,
       .dtype = form == QuantizedForm::Values ? dtype_
           : source.shifted || is_turned_bias ? mx::float32
                                              : dtype_of(tensor.type),
       .shape = {tensor.shape.begin(), tensor.shape.end()},
       .offset = tensor.offset,
       .nbytes = tensor.nbytes});
  sources_.push_back(source);
}

/** Three tensors of MLX's format, and their entry in config.json. Their bytes
 * are those of the file: the codes', and the rest on the scales. */
void GgufModel::add_affine(
    std::size_t index,
    const std::string& name,
    Source source) {
  const GgufTensor& tensor = file_.tensors()[index];
  const AffineForm form = *affine_form(tensor.type);
  const std::int32_t groups = tensor.shape[1] / kGgufGroup;
  const std::string module = artifacts::split_tensor_name(name).module;
  const std::uint64_t code_bytes = std::uint64_t{4} * form.bits *
      static_cast<std::uint64_t>(tensor.shape[0]) * groups;
  const auto add = [&](const char* leaf,
                       Part part,
                       mx::Dtype dtype,
                       std::int32_t cols,
                       std::uint64_t nbytes) {
    infos_.push_back(
        {.name = module + leaf,
         .dtype = dtype,
         .shape = {tensor.shape[0], cols},
         .offset = tensor.offset,
         .nbytes = nbytes});
    source.part = part;
    sources_.push_back(source);
  };
  add(".weight", Part::Codes, mx::uint32, groups * form.bits, code_bytes);
  add(".scales", Part::Scales, form.params, groups, tensor.nbytes - code_bytes);
  add(".biases", Part::Biases, form.params, groups, 0);
  artifacts::Json& block = config_["quantization"];
  if (block.is_null()) {
    block = {{"group_size", kGgufGroup}, {"bits", form.bits}};
  }
  block[module] = {{"group_size", kGgufGroup}, {"bits", form.bits}};
}

mx::array GgufModel::load_values(const Source& source) const {
  const GgufTensor& tensor = file_.tensors()[source.tensor];
  const InterleavedHeads heads{source.head_dim};
  if (source.shifted) {
    return subtract_one(dequantize(file_, tensor, heads));
  }
  if (source.head_dim != 0 && tensor.shape.size() == 1) {
    return in_order(dequantize(file_, tensor), source.head_dim);
  }
  return is_plain(tensor.type) ? load_plain(file_, tensor, heads)
                               : dequantize(file_, tensor, heads);
}

mx::array GgufModel::rounded(const mx::array& values, const GgufTensor& tensor)
    const {
  mx::array rounded = materialize(mx::astype(values, dtype_));
  if (!mx::all(mx::isfinite(rounded)).item<bool>()) {
    fail(
        ErrorKind::Unsupported,
        "[GgufModel] {}: tensor '{}': found values that float16 cannot hold "
        "(above 65504, or not numbers)",
        file_.path().string(),
        tensor.name);
  }
  return rounded;
}

mx::array GgufModel::load_rounded(std::size_t index) const {
  const Source& source = sources_[index];
  const GgufTensor& tensor = file_.tensors()[source.tensor];
  if (source.shifted || tensor.shape.size() != 2 || is_plain(tensor.type)) {
    const mx::array values = load_values(source);
    return values.dtype() == dtype_ ? values : rounded(values, tensor);
  }
  const auto n_rows = static_cast<int>(tensor.shape[0]);
  const auto n_cols = static_cast<int>(tensor.shape[1]);
  mx::array all = make_array({n_rows, n_cols}, dtype_);
  const int block = std::max(1, kRoundedAtOnce / n_cols);
  for (int first = 0; first < n_rows; first += block) {
    const mx::array part = rounded(
        dequantize_rows(
            file_,
            tensor,
            {source.head_dim},
            first,
            std::min(block, n_rows - first)),
        tensor);
    std::memcpy(
        all.data<char>() + part.itemsize() * first * n_cols,
        part.data<char>(),
        part.nbytes());
  }
  return all;
}

mx::array GgufModel::load(std::size_t index) const {
  const Source& source = sources_[index];
  const GgufTensor& tensor = file_.tensors()[source.tensor];
  if (source.part == Part::Values) {
    return form_ == QuantizedForm::Values ? load_rounded(index)
                                          : load_values(source);
  }
  const AffineParts parts = split_affine(file_, tensor, {source.head_dim});
  return source.part == Part::Codes ? parts.weight
      : source.part == Part::Scales ? parts.scales
                                    : parts.biases;
}

void GgufModel::drop(std::size_t index) const {
  const GgufTensor& tensor = file_.tensors()[sources_[index].tensor];
  file_.mapping(tensor)->drop_pages(tensor.offset, tensor.nbytes);
}

std::optional<std::string> GgufModel::side_file(const std::string& name) const {
  if (name == "generation_config.json") {
    return artifacts::dump_json(gguf_generation_config(file_), 2);
  }
  const bool is_sentencepiece = has_sentencepiece_model(file_);
  if (name == "tokenizer.json" && !is_sentencepiece) {
    return gguf_tokenizer_json(file_);
  }
  if (name == "tokenizer.model" && is_sentencepiece) {
    return gguf_sentencepiece_model(file_);
  }
  if (name == "tokenizer_config.json") {
    artifacts::Json config = gguf_tokenizer_config(file_);
    if (is_sentencepiece) {
      config.update(gguf_sentencepiece_config(file_));
    }
    return artifacts::dump_json(config, 2);
  }
  return std::nullopt;
}

} // namespace optiq::io
