#include "optiq/quant/convert.h"

#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "optiq/artifacts/affine_format.h"
#include "optiq/artifacts/module_id.h"
#include "optiq/artifacts/size.h"
#include "optiq/base/error.h"
#include "optiq/base/system.h"
#include "optiq/cli/adapter_option.h"
#include "optiq/cli/commands.h"
#include "optiq/cli/convert_options.h"
#include "optiq/cli/interrupt.h"
#include "optiq/cli/model_option.h"
#include "optiq/cli/output.h"
#include "optiq/cli/progress.h"
#include "optiq/kernels/devices.h"

namespace optiq::cli {
namespace {

void print_layers(const artifacts::Plan& plan) {
  print("{:<40} {:>5} {:>12} {:>12}\n", "module", "bits", "parameters", "KL");
  for (const artifacts::LayerBits& layer : plan.layers) {
    const std::string kl = layer.is_protected ? "protected"
        : layer.kl                            ? fmt::format("{:.3e}", *layer.kl)
                                              : "-";
    print(
        "{:<40} {:>5} {:>12} {:>12}\n",
        artifacts::short_name(artifacts::module_id(layer.name)),
        layer.bits,
        layer.parameters,
        kl);
  }
}

/** What the plan was chosen by, and what the tuning bought. */
void print_kl(
    const quant::ConvertOptions& options,
    const quant::ConvertResult& result) {
  const artifacts::Plan& plan = result.metadata.plan;
  if (result.sensitivity) {
    print(
        "KL            {:.3e} nats per token, summed over matrices\n",
        plan.predicted_kl);
  }
  if (result.agreement) {
    print(
        "estimates     rank {} measured widths with Spearman {:.3f}, {:.0f} % of "
        "the largest {} the same\n",
        result.agreement->n,
        result.agreement->spearman,
        100 * result.agreement->top_overlap,
        result.agreement->top_k);
  }
  if (result.exchange) {
    print(
        "exchanges     {} of {} moves kept, whole model {:.3e} before\n",
        result.exchange->n_kept,
        result.exchange->n_tried,
        result.exchange->kl_before);
  }
  if (plan.measured_kl) {
    print(
        "whole model   {:.3e} nats per token on the calibration text (weight of "
        "the size prior: {:g})\n",
        *plan.measured_kl,
        plan.prior_weight.value_or(0));
  }
  if (result.tuning) {
    print(
        "tuning        {:.3e} nats per token on held-out text, {:.3e} before "
        "(step {} of {})\n",
        result.tuning->kl_after,
        result.tuning->kl_before,
        result.tuning->best_step,
        options.tune_steps);
  }
}

void print_totals(
    const quant::ConvertOptions& options,
    const quant::ConvertResult& result) {
  const artifacts::Plan& plan = result.metadata.plan;
  std::map<int, std::pair<int, std::uint64_t>> widths;
  bool has_protected = false;
  for (const artifacts::LayerBits& layer : plan.layers) {
    ++widths[layer.bits].first;
    widths[layer.bits].second += layer.parameters;
    has_protected = has_protected || layer.is_protected;
  }
  print("\n");
  for (const auto& [bits, row] : widths) {
    print("{} bits: {} matrices, {} parameters\n", bits, row.first, row.second);
  }
  print(
      "code width    {:.4f} bits per weight (mean{})\n",
      plan.achieved_bpw,
      has_protected ? " outside the protected set" : "");
  print(
      "file          {:.4f} bits per weight, {} of model*.safetensors ({} "
      "bytes, source {})\n",
      plan.file_bpw,
      artifacts::format_size(plan.file_bytes),
      plan.file_bytes,
      artifacts::format_size(result.source_bytes));
  if (result.mtp_bytes > 0) {
    print(
        "sidecar       {} in optiq/mtp.safetensors\n",
        artifacts::format_size(result.mtp_bytes));
  }
  print_kl(options, result);
  if (options.dry_run) {
    print(
        "needs         {} of RAM, {} of disk, about {} (nothing was written)\n",
        artifacts::format_size(result.cost.ram_bytes),
        artifacts::format_size(result.cost.disk_bytes),
        format_duration(result.cost.seconds.value_or(0)));
  } else {
    print("written to    {}\n", options.output.string());
  }
}

void write_result_json(
    const std::string& path,
    const quant::ConvertOptions& options,
    const quant::ConvertResult& result,
    double seconds) {
  artifacts::Json json = artifacts::to_json(result.metadata);
  json["output"] = options.output.string();
  json["device"] = options.device->name();
  json["dry_run"] = options.dry_run;
  json["source_bytes"] = result.source_bytes;
  json["mtp_bytes"] = result.mtp_bytes;
  json["ram_bytes"] = result.cost.ram_bytes;
  json["disk_bytes"] = result.cost.disk_bytes;
  json["estimated_seconds"] = result.cost.seconds
      ? artifacts::Json(*result.cost.seconds)
      : artifacts::Json();
  json["seconds"] = seconds;
  json["peak_rss_bytes"] = peak_rss_bytes();
  if (result.agreement) {
    json["estimate_agreement"] = {
        {"widths", result.agreement->n},
        {"spearman", result.agreement->spearman},
        {"top_k", result.agreement->top_k},
        {"top_overlap", result.agreement->top_overlap}};
  }
  if (result.tuning) {
    json["tuning"] = {
        {"best_step", result.tuning->best_step},
        {"kl_before", result.tuning->kl_before},
        {"kl_after", result.tuning->kl_after}};
  }
  if (result.exchange) {
    json["exchange"] = {
        {"tried", result.exchange->n_tried},
        {"kept", result.exchange->n_kept},
        {"kl_before", result.exchange->kl_before}};
  }
  json["notices"] = result.notices;
  write_result(path, artifacts::dump_json(json, 2), options.source);
}

/** Shows progress, and ends the work where the user does. */
template <class Work>
auto with_progress(const ConvertFlags& flags, const Work& work) {
  const InterruptGuard interrupt;
  ProgressPrinter printer(parse_progress_mode(flags.progress));
  auto result = work([&](const ProgressEvent& event) {
    if (interrupt.flag()) {
      printer.finish();
      fail(
          ErrorKind::Cancelled,
          "[convert] interrupted; nothing was written. What was measured is "
          "kept: the same command goes on from there.");
    }
    printer.show(event);
  });
  printer.finish();
  return result;
}

void run_share(const ConvertFlags& flags) {
  const quant::Share share = quant::parse_share(flags.shard);
  const quant::ConvertOptions options = to_options(flags);
  const quant::ShareResult result =
      with_progress(flags, [&](const ProgressSink& progress) {
        return quant::measure_share(options, share, progress);
      });
  for (const std::string& notice : result.notices) {
    print_error("note: {}\n", notice);
  }
  print(
      "share {}: {} of {} chunks are measured. When all shares are, the same "
      "command without --shard converts.\n",
      share.name(),
      result.chunks.end - result.chunks.first,
      result.n_chunks);
  if (!flags.json.empty()) {
    const artifacts::Json json = {
        {"share", share.index},
        {"shares", share.count},
        {"first_chunk", result.chunks.first},
        {"end_chunk", result.chunks.end},
        {"chunks", result.n_chunks},
        {"notices", result.notices}};
    write_result(flags.json, artifacts::dump_json(json, 2), options.source);
  }
}

void run_convert(const ConvertFlags& flags) {
  if (!flags.shard.empty()) {
    run_share(flags);
    return;
  }
  const quant::ConvertOptions options = to_options(flags);
  const auto start = std::chrono::steady_clock::now();
  const quant::ConvertResult result =
      with_progress(flags, [&](const ProgressSink& progress) {
        return quant::convert(options, progress);
      });
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  for (const std::string& notice : result.notices) {
    print_error("note: {}\n", notice);
  }
  print_layers(result.metadata.plan);
  print_totals(options, result);
  if (!flags.json.empty()) {
    write_result_json(flags.json, options, result, seconds);
  }
}

void add_target_options(CLI::App& command, ConvertFlags& flags) {
  quant::PlanOptions& plan = flags.options.plan;
  command.add_option(
      "--target-bpw",
      plan.target_bpw,
      "Mean code width outside the protected set, e.g. 4.5 (default 5)");
  command.add_option(
      "--target-file-bpw",
      plan.target_file_bpw,
      "Bits per parameter of the written weights, everything counted");
  command.add_option(
      "--target-size",
      flags.target_size,
      "Bytes of the written weights: 600MB, 1.5GiB or plain bytes");
  command.add_option(
      "--target-kl",
      plan.target_kl,
      "The smallest model that loses so many nats per token on the calibration "
      "text");
  command
      .add_option(
          "--method",
          flags.method,
          "optiq: by measured KL; static: by position; uniform: one width")
      ->option_text("optiq|static|uniform");
  command.add_option(
      "--bits", flags.bits, "Width of every matrix, with --method uniform");
}

void add_output_options(CLI::App& command, ConvertFlags& flags) {
  add_file_option(
      command,
      "-o,--output",
      flags.output,
      "The new model directory (default optiq_output/<name>)");
  command.add_flag(
      "--overwrite",
      flags.options.overwrite,
      "Replace an existing model directory, once the new one is complete");
  command.add_flag(
      "--dry-run",
      flags.options.dry_run,
      "Show plan, size, RAM and time; write nothing");
  add_file_option(
      command, "--save-plan", flags.save_plan, "Write the plan to this file");
  command.add_option(
      "--plan", flags.plan, "Take the widths from this plan; measure nothing");
  command
      .add_option(
          "--shard",
          flags.shard,
          "Measure this share of the calibration text and end: 1/4 to 4/4 in "
          "several processes, or on machines that share OPTIQ_CACHE_DIR")
      ->option_text("I/N");
  command
      .add_option(
          "--max-ram",
          flags.max_ram,
          "Keep the process within this memory, 400MB or 2GiB: weights stay in "
          "their files, and long-lived arrays go to OPTIQ_CACHE_DIR")
      ->option_text("SIZE");
  add_progress_option(command, flags.progress);
  add_file_option(
      command, "--json", flags.json, "Write the result to this file");
}

} // namespace

void add_width_options(CLI::App& command, ConvertFlags& flags) {
  quant::PlanOptions& plan = flags.options.plan;
  command
      .add_option(
          "--candidate-bits",
          plan.candidate_bits,
          fmt::format(
              "Widths to choose from, of {}, and {}: as it is",
              fmt::join(artifacts::kAffineBits, ","),
              artifacts::kDenseBits))
      ->delimiter(',')
      ->default_str("4,8");
  command
      .add_option(
          "--group-size",
          flags.group_sizes,
          "Weights per scale, one or several to choose from, of " +
              fmt::format("{}", fmt::join(artifacts::kAffineGroupSizes, ",")))
      ->delimiter(',')
      ->default_str(std::to_string(artifacts::kDefaultGroupSize));
  static const std::map<std::string, bool> kSwitch{
      {"on", true}, {"off", false}};
  command
      .add_option(
          "--protect",
          flags.protect,
          "Keep head, embeddings and outer mixers at the widest candidate")
      ->transform(CLI::CheckedTransformer(kSwitch))
      ->option_text("on|off");
  command
      .add_option(
          "--tie",
          flags.options.plan.tie,
          "One width for q, k and v of a layer, and one for gate and up, for "
          "kernels that multiply them at once [off]")
      ->transform(CLI::CheckedTransformer(kSwitch))
      ->option_text("on|off");
}

void add_rounding_options(CLI::App& command, ConvertFlags& flags) {
  command
      .add_option(
          "--rounding",
          flags.rounding,
          "nearest: each weight to its nearest code; search: scales and biases "
          "of least error; gptq: error feedback by what the matrix reads on the "
          "calibration text (default: gptq where widths are measured, else "
          "nearest)")
      ->option_text("nearest|search|gptq");
  command
      .add_option(
          "--tune-steps",
          flags.options.tune_steps,
          "Steps of tuning scales and biases, so that the model's output on the "
          "calibration text comes closer to full precision")
      ->capture_default_str();
}

void add_calibration_options(CLI::App& command, ConvertFlags& flags) {
  quant::CalibrationOptions& calibration = flags.options.calibration;
  command
      .add_option(
          "--calibration",
          calibration.source,
          "Text to measure on: mix (built in), self (sampled from the model), "
          "both (half of each) or a FILE of text or JSONL [both]")
      ->option_text("mix|self|both|FILE");
  command
      .add_option(
          "--n-calibration", calibration.n_chunks, "Chunks of 512 tokens")
      ->capture_default_str();
  command
      .add_option(
          "--seed", calibration.seed, "Which chunks (self: which samples)")
      ->capture_default_str();
  command
      .add_option(
          "--sensitivity",
          flags.sensitivity,
          "exact: every matrix and width measured; fast: estimated from "
          "gradients; auto: estimated, and measured where it decides")
      ->option_text("auto|fast|exact");
  command.add_option(
      "--measure-budget",
      flags.options.measure_budget,
      "Forwards of the calibration text that auto may measure, half of it "
      "whole models (default: what the estimate takes)");
  command.add_option(
      "--time-budget",
      flags.options.time_budget,
      "The same in seconds, of this machine");
}

quant::ConvertOptions to_options(const ConvertFlags& flags) {
  quant::ConvertOptions options = flags.options;
  options.plan.protect = flags.protect;
  if (!flags.method.empty()) {
    options.plan.method = artifacts::plan_method_of(flags.method);
  }
  if (!flags.rounding.empty()) {
    options.rounding = quant::rounding_of(flags.rounding);
  }
  if (!flags.sensitivity.empty()) {
    options.sensitivity = artifacts::sensitivity_form_of(flags.sensitivity);
  }
  if (!flags.group_sizes.empty()) {
    options.plan.group_size = flags.group_sizes.front();
    options.plan.other_group_sizes = flags.group_sizes;
  }
  options.plan.uniform_bits = flags.bits.value_or(options.plan.uniform_bits);
  if (!flags.target_size.empty()) {
    options.plan.target_bytes = artifacts::parse_size(flags.target_size);
  }
  if (!flags.max_ram.empty()) {
    options.max_ram = artifacts::parse_size(flags.max_ram);
  }
  if (!flags.save_plan.empty()) {
    options.save_plan = flags.save_plan;
  }
  if (!flags.plan.empty()) {
    options.load_plan = flags.plan;
  }
  options.device = &kernels::find_device(flags.device);
  options.source =
      find_model(flags.source, parse_progress_mode(flags.progress));
  refuse_adapter_inside("convert", options.source);
  options.output = flags.output.empty()
      ? "optiq_output/" + name_of_model(options.source)
      : flags.output;
  return options;
}

void add_convert_command(CLI::App& app) {
  auto* command = app.add_subcommand(
      "convert", "Quantize a model: measure, choose widths, write");
  auto flags = std::make_shared<ConvertFlags>();
  add_model_option(*command, flags->source);
  add_output_options(*command, *flags);
  add_target_options(*command, *flags);
  add_width_options(*command, *flags);
  add_rounding_options(*command, *flags);
  add_calibration_options(*command, *flags);
  add_device_option(*command, flags->device);
  add_threads_option(*command);
  refuse_adapter_option(
      *command,
      "an adapter stays beside the converted model, which runs with it; one "
      "model of both is made by optiq lora fuse MODEL DIR -o OUT");
  command->footer(
      "Examples:\n"
      "  optiq convert DIR --target-bpw 4.5 --candidate-bits 4,8 -o OUT\n"
      "  optiq convert DIR --target-size 600MB --candidate-bits 3,4,6,8\n"
      "  optiq convert DIR --method uniform --bits 4 -o OUT4\n"
      "Measurements are kept in $OPTIQ_CACHE_DIR/sensitivity (or "
      "~/.cache/optiq/sensitivity)\nand serve every later target.");
  command->callback([flags] { run_convert(*flags); });
}

} // namespace optiq::cli
