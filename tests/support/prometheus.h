#pragma once

#include <map>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace optiq::testing {

/** Samples of a page in Prometheus' text format 0.0.4, by name and labels. A
 * strict reader: throws for a line that is none, a family without HELP and TYPE
 * before it, a histogram that does not ascend to its count. */
class PrometheusPage {
 public:
  explicit PrometheusPage(const std::string& text) {
    if (text.empty() || text.back() != '\n') {
      throw std::runtime_error("the last line does not end");
    }
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      read(line);
    }
    end_histogram();
  }

  double operator[](const std::string& sample) const {
    return samples_.at(sample);
  }
  const std::map<std::string, double>& samples() const {
    return samples_;
  }

 private:
  void read(const std::string& line) {
    static const std::regex help(R"(# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) \S.*)");
    static const std::regex type(
        R"(# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram))");
    static const std::regex sample(
        R"re(([a-zA-Z_:][a-zA-Z0-9_:]*)(\{([a-z_]+="(\\\\|\\"|\\n|[^"\\])*",?)+\})? (-?[0-9.e+-]+|\+Inf))re");
    std::smatch match;
    if (std::regex_match(line, match, help)) {
      end_histogram();
      helped_ = match[1];
    } else if (std::regex_match(line, match, type)) {
      if (helped_ != match[1] || types_.count(match[1]) != 0) {
        throw std::runtime_error("a type without help, or twice: " + line);
      }
      family_ = match[1];
      types_[family_] = match[2];
    } else if (std::regex_match(line, match, sample)) {
      add(match[1], match[1].str() + match[2].str(), std::stod(match[5]));
    } else {
      throw std::runtime_error("no line of the format: " + line);
    }
  }

  void add(const std::string& name, const std::string& sample, double value) {
    const bool is_histogram = types_[family_] == "histogram";
    if (name != family_ &&
        !(is_histogram &&
          (name == family_ + "_bucket" || name == family_ + "_sum" ||
           name == family_ + "_count"))) {
      throw std::runtime_error("a sample of another family: " + sample);
    }
    if (types_[family_] == "counter" &&
        name.rfind("_total") == std::string::npos) {
      throw std::runtime_error("a counter that is no _total: " + sample);
    }
    if (name == family_ + "_bucket" && is_histogram) {
      if (value < last_bucket_) {
        throw std::runtime_error("buckets that descend: " + sample);
      }
      last_bucket_ = value;
    }
    if (!samples_.emplace(sample, value).second) {
      throw std::runtime_error("a sample twice: " + sample);
    }
  }

  void end_histogram() {
    if (!family_.empty() && types_[family_] == "histogram" &&
        samples_.at(family_ + "_bucket{le=\"+Inf\"}") !=
            samples_.at(family_ + "_count")) {
      throw std::runtime_error("a histogram without its count: " + family_);
    }
    last_bucket_ = 0;
  }

  std::map<std::string, std::string> types_;
  std::map<std::string, double> samples_;
  std::string helped_;
  std::string family_;
  double last_bucket_ = 0;
};

} // namespace optiq::testing
