#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "optiq/artifacts/eval_result.h"
#include "optiq/base/error.h"
#include "optiq/cli/adapter_option.h"
#include "optiq/cli/commands.h"
#include "optiq/cli/kv_options.h"
#include "optiq/cli/model_option.h"
#include "optiq/cli/output.h"
#include "optiq/cli/progress.h"
#include "optiq/eval/dataset.h"
#include "optiq/eval/exact_match.h"
#include "optiq/eval/kl.h"
#include "optiq/eval/needle.h"
#include "optiq/eval/perplexity.h"
#include "optiq/generate/defaults.h"
#include "optiq/kernels/devices.h"
#include "optiq/kernels/machine.h"

namespace optiq::cli {
namespace {

struct EvalFlags {
  std::string model;
  std::string task;
  std::string reference;
  std::string data;
  std::string json;
  std::string progress = "auto";
  std::size_t limit = 0;
  bool raw = false;
  int max_tokens = 64;
  bool default_max_tokens = true; // nobody chose it
  int batch = 16;
  std::optional<std::size_t> seq_len; // of plain text
  eval::NeedleOptions needle;
  KvFlags kv;
  std::vector<std::string> adapters;
  kernels::Compute compute = kernels::Compute::Exact;
  std::string device = "auto";
  std::string reference_device; // "": that of the model
};

/** A model with what turns text into its tokens. */
struct Subject {
  io::ModelDirectory directory;
  std::shared_ptr<const text::Tokenizer> tokenizer;
};

kernels::Device& device_of(const EvalFlags& flags) {
  return kernels::find_device(flags.device);
}

kernels::Device& reference_device_of(const EvalFlags& flags) {
  return flags.reference_device.empty()
      ? device_of(flags)
      : kernels::find_device(flags.reference_device);
}

Subject open_subject(const std::string& path) {
  auto directory = open_model(path);
  auto tokenizer = generate::load_tokenizer(directory);
  return {std::move(directory), std::move(tokenizer)};
}

/** Measuring wants exact arithmetic; answering questions is running. */
kernels::Compute default_compute(const std::string& task) {
  return task == "kl" || task == "ppl" ? kernels::Compute::Exact
                                       : kernels::Compute::Fast;
}

eval::ExactMatchOptions answering_options(
    const EvalFlags& flags,
    const Subject& subject,
    const ProgressSink& sink) {
  return {
      .max_tokens = flags.max_tokens,
      .clamp_max_tokens = flags.default_max_tokens,
      .batch = flags.batch,
      .stop_ids = generate::stop_ids(subject.directory, *subject.tokenizer),
      .on_progress = sink};
}

std::vector<eval::TokenRow> token_rows(
    const EvalFlags& flags,
    const eval::Dataset& dataset,
    const text::ChatTemplate* chat,
    const text::Tokenizer& tokenizer) {
  return eval::encode_dataset(
      dataset, tokenizer, chat, flags.seq_len, flags.limit);
}

/** How the model that is measured runs. */
models::Setup subject_setup(
    const EvalFlags& flags,
    const std::shared_ptr<const models::Model>& model) {
  return with_adapters(
      make_setup(model, flags.compute, flags.kv), flags.adapters);
}

/** "MODEL + ADAPTER". */
std::string describe_subject(const EvalFlags& flags) {
  std::string text = flags.model;
  for (const std::string& adapter : flags.adapters) {
    text += " + " + adapter;
  }
  return text;
}

artifacts::KlScores run_kl(
    const EvalFlags& flags,
    const eval::Dataset& dataset,
    const Subject& subject,
    const text::ChatTemplate* chat,
    const ProgressSink& sink) {
  const Subject reference = open_subject(flags.reference);
  const auto rows = token_rows(flags, dataset, chat, *subject.tokenizer);
  eval::require_same_tokens(
      rows,
      token_rows(flags, dataset, chat, *reference.tokenizer),
      flags.model,
      flags.reference,
      dataset.name);
  kernels::Device& device = device_of(flags);
  const models::Setup expected(
      load_checked(reference.directory, reference_device_of(flags)),
      kernels::Compute::Exact);
  // A model that differs from its reference by cache or adapter alone is loaded
  // once.
  const bool is_same =
      flags.reference == flags.model && &expected.model->device() == &device;
  const auto setup = subject_setup(
      flags,
      is_same ? expected.model : load_checked(subject.directory, device));
  return eval::measure_kl(expected, setup, rows, {.on_progress = sink});
}

artifacts::PerplexityScores run_perplexity(
    const EvalFlags& flags,
    const eval::Dataset& dataset,
    const Subject& subject,
    const text::ChatTemplate* chat,
    const ProgressSink& sink) {
  const auto rows = token_rows(flags, dataset, chat, *subject.tokenizer);
  return eval::measure_perplexity(
      subject_setup(flags, load_checked(subject.directory, device_of(flags))),
      rows,
      {.on_progress = sink});
}

artifacts::ExactMatchScores run_exact_match(
    const EvalFlags& flags,
    const eval::Dataset& dataset,
    const Subject& subject,
    const text::ChatTemplate* chat,
    const ProgressSink& sink) {
  if (chat == nullptr) {
    fail(
        ErrorKind::InvalidInput,
        "[eval] {}: found plain text, expected a .jsonl file with rows of "
        "question and value or answer",
        flags.data);
  }
  const auto wanted = eval::wanted_numbers(dataset);
  const auto prompts = eval::encode_chats(
      eval::render_questions(dataset, *chat), *subject.tokenizer);
  return eval::measure_exact_match(
      subject_setup(flags, load_checked(subject.directory, device_of(flags))),
      *subject.tokenizer,
      prompts,
      wanted,
      answering_options(flags, subject, sink));
}

artifacts::NeedleScores run_needle(
    const EvalFlags& flags,
    const Subject& subject,
    const text::ChatTemplate* chat,
    const ProgressSink& sink) {
  const auto prompts =
      eval::make_needle_prompts(*subject.tokenizer, chat, flags.needle);
  return eval::measure_needle(
      subject_setup(flags, load_checked(subject.directory, device_of(flags))),
      *subject.tokenizer,
      prompts,
      flags.needle,
      answering_options(flags, subject, sink));
}

void print_row(const char* name, double value, std::optional<double> error) {
  if (error) {
    print("{:<16} {:<11.5g} ± {:.2g}\n", name, value, *error);
  } else {
    print("{:<16} {:.5g}\n", name, value);
  }
}

void print_scores(const artifacts::KlScores& s) {
  print_row("mean_kl", s.mean_kl, s.mean_kl_stderr);
  print_row("mean_row_kl", s.mean_row_kl, s.mean_row_kl_stderr);
  print_row("median_kl", s.median_kl, {});
  print_row("p99_kl", s.p99_kl, {});
  print_row("top1_agreement", s.top1_agreement, s.top1_agreement_stderr);
  print("{:<16} {} in {} rows\n", "tokens", s.tokens, s.rows);
}

void print_scores(const artifacts::PerplexityScores& s) {
  print_row("ppl", s.ppl, s.ppl_stderr);
  print_row("mean_nll", s.mean_nll, {});
  print("{:<16} {} in {} rows\n", "tokens", s.tokens, s.rows);
}

void print_scores(const artifacts::ExactMatchScores& s) {
  print_row("accuracy", s.accuracy, s.accuracy_stderr);
  print("{:<16} {}\n", "count", s.count);
  print("{:<16} {}\n", "truncated", s.truncated);
}

void print_scores(const artifacts::NeedleScores& s) {
  print_row("accuracy", s.accuracy, s.accuracy_stderr);
  print("{:<16}", "tokens \\ depth");
  for (const double depth : s.depths) {
    print(" {:>6.2f}", depth);
  }
  for (std::size_t i = 0; i < s.lengths.size(); ++i) {
    print("\n{:<16}", s.lengths[i]);
    for (const int right : s.right[i]) {
      print(" {:>6.2f}", static_cast<double>(right) / s.trials);
    }
  }
  print("\n");
}

void print_result(const artifacts::EvalResult& result) {
  print(
      "{} of {}{}, {} arithmetic, {} K/V cache, device {}, {}\n",
      artifacts::task_of(result),
      result.model,
      result.data.empty() ? "" : " on " + result.data,
      result.compute,
      result.kv,
      result.device,
      result.simd);
  if (!result.reference.empty()) {
    print(
        "reference {}, exact arithmetic, device {}\n",
        result.reference,
        result.reference_device);
  }
  std::visit([](const auto& scores) { print_scores(scores); }, result.scores);
}

void run_eval(const EvalFlags& flags) {
  ProgressPrinter printer(parse_progress_mode(flags.progress));
  const ProgressSink sink = [&](const ProgressEvent& event) {
    printer.show(event);
  };
  const bool is_needle = flags.task == "needle";
  const eval::Dataset dataset =
      is_needle ? eval::Dataset{} : eval::load_dataset(flags.data, flags.limit);
  const Subject subject = open_subject(flags.model);
  std::optional<text::ChatTemplate> chat;
  if (!dataset.rows.empty() || (is_needle && !flags.raw)) {
    chat = generate::load_chat_template(subject.directory);
  }
  const text::ChatTemplate* const rendering = chat ? &*chat : nullptr;
  artifacts::EvalResult result{
      .model = describe_subject(flags),
      .reference = flags.reference,
      .data = dataset.name,
      .compute = name_of(flags.compute),
      .device = device_of(flags).name(),
      .reference_device =
          flags.task == "kl" ? reference_device_of(flags).name() : "",
      .simd = kernels::simd_target(),
      .kv = describe_kv(flags.kv),
      .limit = flags.limit,
      .scores = {}};
  if (flags.task == "kl") {
    result.scores = run_kl(flags, dataset, subject, rendering, sink);
  } else if (flags.task == "ppl") {
    result.scores = run_perplexity(flags, dataset, subject, rendering, sink);
  } else if (is_needle) {
    result.scores = run_needle(flags, subject, rendering, sink);
  } else {
    result.scores = run_exact_match(flags, dataset, subject, rendering, sink);
  }
  printer.finish();
  print_result(result);
  if (!flags.json.empty()) {
    write_result(
        flags.json,
        artifacts::dump_json(artifacts::to_json(result), 2),
        subject.directory.path());
  }
}

void add_needle_options(CLI::App& command, EvalFlags& flags) {
  eval::NeedleOptions& needle = flags.needle;
  command
      .add_option(
          "--lengths", needle.lengths, "needle: tokens of a prompt, each one")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 24))
      ->option_text("N,N,... [256,512,1024,2048,4096]");
  command
      .add_option(
          "--depths", needle.depths, "needle: place of the number, 0 to 1")
      ->delimiter(',')
      ->check(CLI::Range(0.0, 1.0))
      ->option_text("D,D,... [0,0.25,0.5,0.75,1]");
  command
      .add_option(
          "--trials", needle.trials, "needle: prompts of a length and depth")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  command
      .add_option(
          "--facts",
          needle.facts,
          "needle: numbers in a text, the one asked for included")
      ->check(CLI::Range(1, 400))
      ->capture_default_str();
  command.add_option("--seed", needle.seed, "needle: of the texts")
      ->capture_default_str();
  command.add_flag(
      "--raw", flags.raw, "needle: plain text instead of the chat template");
}

void add_device_options(CLI::App& command, EvalFlags& flags) {
  add_device_option(command, flags.device);
  command
      .add_option(
          "--reference-device",
          flags.reference_device,
          "Where the reference runs (kl; default: as the model)")
      ->check(check_device_name)
      ->option_text(kDeviceNames);
}

} // namespace

void add_eval_command(CLI::App& app) {
  auto* command = app.add_subcommand(
      "eval",
      "Measure a model: KL to a reference, perplexity, right answers, needles");
  auto flags = std::make_shared<EvalFlags>();
  add_model_option(*command, flags->model);
  command->add_option("--task", flags->task, "What to measure")
      ->required()
      ->check(CLI::IsMember({"kl", "ppl", "exact-match", "needle"}))
      ->option_text("kl|ppl|exact-match|needle");
  command->add_option(
      "--reference", flags->reference, "Model to compare with (kl)");
  command->add_option(
      "--data",
      flags->data,
      "*.jsonl with rows {question, value | answer}, or plain text");
  command
      ->add_option("--limit", flags->limit, "Rows (or chunks) at most, 0 = all")
      ->capture_default_str();
  command
      ->add_option(
          "--max-tokens", flags->max_tokens, "Tokens of an answer at most")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--batch", flags->batch, "Questions at a time")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command
      ->add_option(
          "--seq-len", flags->seq_len, "Tokens of a chunk of plain text [512]")
      ->check(CLI::Range(2, 1 << 24));
  add_needle_options(*command, *flags);
  add_compute_option(*command, flags->compute);
  add_device_options(*command, *flags);
  add_kv_options(*command, flags->kv);
  add_adapter_option(*command, flags->adapters, kAdaptersToRunWith);
  add_threads_option(*command);
  add_progress_option(*command, flags->progress);
  add_file_option(
      *command, "--json", flags->json, "Write the result to this file");
  command->footer(
      "kl and ppl run in exact arithmetic unless --compute says otherwise; a\n"
      "reference always does. exact-match answers greedily through the chat\n"
      "template; an answer is right when its last number is the row's value,\n"
      "or the number after #### in the row's answer. needle hides a number in\n"
      "prose and asks for it.\n"
      "Examples:\n"
      "  optiq eval OUT --task kl --reference SRC --data text.txt\n"
      "  optiq eval OUT --task exact-match --data questions.jsonl\n"
      "  optiq eval OUT --task needle --lengths 1024,4096 --trials 8");
  command->callback([command, flags] {
    flags->default_max_tokens = command->count("--max-tokens") == 0;
    if (command->count("--compute") == 0) {
      flags->compute = default_compute(flags->task);
    }
    run_eval(*flags);
  });
}

} // namespace optiq::cli
