// Loads an artifact of scripts/export.py with libtorch alone, reads its metadata, runs its golden input, and
// prints the difference from the golden output and the latency.
//
//   run_artifact FILE [--device cpu] [--threads 1] [--calls 50]
//
// Exit code 0: same output; 1: another output; 2: no artifact, or a wrong command line.

#include <ATen/Parallel.h>
#include <torch/script.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <regex>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr int kSchemaVersion = 3;  // pixio_robot/deployment/artifact/metadata.py
// Rounding differs from processor to processor; the reduced precisions lose more (PARITY_TOLERANCE in verification.py).
const std::map<std::string, double> kTolerance = {{"float32", 1e-5}, {"float16", 0.01}, {"bfloat16", 0.05}, {"int8", 0.2}};

struct UserError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Returns how far the output lies from the golden one, as difference_between in verification.py measures it.
double difference_between(const at::Tensor& output, const at::Tensor& expected, const std::string& precision) {
  if (precision == "float32") {
    return (output - expected).abs().max().item<double>() / std::max(1.0, expected.abs().max().item<double>());
  }
  const double square = (output - expected).square().mean().item<double>();
  return std::sqrt(square / std::max(1e-12, expected.square().mean().item<double>()));
}

// Returns a top-level number or string of the metadata, which is JSON with an entry to a line. Enough to print and to
// check; a robot's program would use its own JSON library.
std::string metadata_field(const std::string& metadata, const std::string& key) {
  std::smatch match;
  if (!std::regex_search(metadata, match, std::regex("\n \"" + key + "\": \"?([^\",\n]*)"))) {
    throw UserError("the metadata has no " + key);
  }
  return match[1];
}

struct Arguments {
  std::string file;
  std::string device = "cpu";
  int threads = 1;
  int calls = 50;
};

int positive(const std::string& option, const std::string& text) {
  const int value = std::atoi(text.c_str());
  if (value < 1) {
    throw UserError(option + " must be a number above 0, not " + text);
  }
  return value;
}

Arguments parse(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.rfind("--", 0) != 0 && arguments.file.empty()) {
      arguments.file = argument;
    } else if (i + 1 < argc && argument == "--device") {
      arguments.device = argv[++i];
    } else if (i + 1 < argc && argument == "--threads") {
      arguments.threads = positive(argument, argv[++i]);
    } else if (i + 1 < argc && argument == "--calls") {
      arguments.calls = positive(argument, argv[++i]);
    } else {
      throw UserError("cannot read " + argument + ": give FILE [--device cpu] [--threads 1] [--calls 50]");
    }
  }
  if (arguments.file.empty()) {
    throw UserError("give the file of an artifact");
  }
  return arguments;
}

int run(const Arguments& arguments) {
  at::set_num_threads(arguments.threads);
  torch::jit::ExtraFilesMap extra_files{{"metadata.json", ""}};
  torch::jit::Module module;
  try {
    module = torch::jit::load(arguments.file, torch::Device(arguments.device), extra_files);
  } catch (const c10::Error& error) {
    throw UserError(arguments.file + " is no TorchScript file, or cannot run on " + arguments.device + " (" +
                    error.what_without_backtrace() + ")");
  }
  const std::string metadata = extra_files["metadata.json"];
  if (metadata.empty()) {
    throw UserError(arguments.file + " is not a pixio-robot artifact: it has no metadata");
  }
  const int schema = std::atoi(metadata_field(metadata, "schema").c_str());
  if (schema != kSchemaVersion) {
    throw UserError("the artifact has schema " + std::to_string(schema) + ", this program reads " +
                    std::to_string(kSchemaVersion));
  }
  for (const char* key : {"kind", "policy", "precision", "control_rate_hz", "observation_horizon", "action_horizon"}) {
    std::printf("%-20s %s\n", key, metadata_field(metadata, key).c_str());
  }
  for (const auto& camera : module.attr("cameras").toListRef()) {
    std::printf("%-20s %s\n", "camera", camera.toStringRef().c_str());
  }

  torch::InferenceMode inference;
  module.eval();
  const std::vector<torch::jit::IValue> inputs{module.attr("golden_observation")};
  const at::Tensor expected = module.attr("golden_output").toTensor().cpu();
  const at::Tensor output = module.forward(inputs).toTensor().cpu();
  const std::string precision = metadata_field(metadata, "precision");
  const double difference = difference_between(output, expected, precision);

  // TorchScript optimises in its first calls.
  std::vector<double> milliseconds;
  for (int call = -5; call < arguments.calls; ++call) {
    const auto start = std::chrono::steady_clock::now();
    module.forward(inputs).toTensor().cpu();  // the copy waits for a GPU
    const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;
    if (call >= 0) {
      milliseconds.push_back(elapsed.count());
    }
  }
  std::sort(milliseconds.begin(), milliseconds.end());
  const auto percentile = [&](double share) {
    return milliseconds[static_cast<std::size_t>(share * static_cast<double>(milliseconds.size() - 1))];
  };
  std::printf("%-20s %.2e\n", "difference", difference);
  std::printf("%-20s p50 %.2f ms, p99 %.2f ms (%s, %d thread(s), %d calls)\n", "latency", percentile(0.5),
              percentile(0.99), arguments.device.c_str(), arguments.threads, arguments.calls);
  const double tolerance = kTolerance.at(precision);
  if (!(difference <= tolerance)) {  // also where it is not a number
    std::fprintf(stderr, "error: the output differs from the golden one by more than %.0e\n", tolerance);
    return 1;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(parse(argc, argv));
  } catch (const UserError& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
