// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <string>

#include "apps/roofline.h"
#include "tensor/check.h"

namespace nibble::cli {

namespace {

constexpr double width = 900, height = 460, left = 80, right = 250, top = 46, bottom = 56;

std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) out += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
  return out;
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f", value);
  return text;
}

/// One chart: operations per byte to the right, GOP/s up, both logarithmic.
class Chart {
 public:
  Chart(const Roofline& roofline, double offset) : roofline_(roofline), offset_(offset) {
    for (const RooflineRow& row : roofline.rows) {
      if (row.operations <= 0 || row.seconds <= 0 || row.bytes <= 0) continue;
      see(row.operations / row.bytes, row.operations / row.seconds / 1e9);
      points_.push_back(&row);
    }
    const Roofs& roofs = roofline.roofs;
    for (double peak : {roofs.int8_peak, roofs.f32_peak})
      if (peak > 0) see(roofs.bandwidth > 0 ? peak / roofs.bandwidth * 2 : 1, peak / 1e9 * 1.5);
    if (low_x_ > high_x_) see(1, 1), see(10, 10);
    low_x_ = std::floor(std::log10(low_x_));
    high_x_ = std::max(low_x_ + 1, std::ceil(std::log10(high_x_)));
    low_y_ = std::floor(std::log10(low_y_));
    high_y_ = std::max(low_y_ + 1, std::ceil(std::log10(high_y_)));
  }

  std::string draw() {
    text(left, offset_ + 26, roofline_.title, "font-size=\"16\" font-weight=\"bold\"");
    axes();
    roofs();
    points();
    return std::move(out_);
  }

 private:
  void see(double x, double y) {
    low_x_ = std::min(low_x_, x), high_x_ = std::max(high_x_, x);
    low_y_ = std::min(low_y_, y), high_y_ = std::max(high_y_, y);
  }
  double x(double intensity) const {
    return left + (std::log10(intensity) - low_x_) / (high_x_ - low_x_) * (width - left - right);
  }
  double y(double speed) const {
    return offset_ + height - bottom - (std::log10(speed) - low_y_) / (high_y_ - low_y_) * (height - top - bottom);
  }
  void line(double x1, double y1, double x2, double y2, const char* style) {
    out_ += message("<line x1=\"", number(x1), "\" y1=\"", number(y1), "\" x2=\"", number(x2), "\" y2=\"", number(y2),
                    "\" ", style, "/>\n");
  }
  void text(double at_x, double at_y, const std::string& what, const char* style = "") {
    out_ += message("<text x=\"", number(at_x), "\" y=\"", number(at_y), "\" ", style, ">", escaped(what), "</text>\n");
  }

  void axes() {
    const auto power = [](double exponent) { return message(std::pow(10.0, exponent)); };
    for (double e = low_x_; e <= high_x_; ++e) {
      const double at = x(std::pow(10, e));
      line(at, offset_ + top, at, offset_ + height - bottom, "stroke=\"#ddd\"");
      text(at, offset_ + height - bottom + 18, power(e), "text-anchor=\"middle\"");
    }
    for (double e = low_y_; e <= high_y_; ++e) {
      const double at = y(std::pow(10, e));
      line(left, at, width - right, at, "stroke=\"#ddd\"");
      text(left - 8, at + 4, power(e), "text-anchor=\"end\"");
    }
    text((left + width - right) / 2, offset_ + height - 14, "operations per byte", "text-anchor=\"middle\"");
    const double middle = offset_ + (top + height - bottom) / 2;
    out_ += message("<text x=\"22\" y=\"", number(middle), "\" text-anchor=\"middle\" transform=\"rotate(-90 22 ",
                    number(middle), ")\">GOP/s</text>\n");
  }

  /// The slope of the bandwidth up to each peak, then the peak.
  void roofs() {
    const Roofs& roofs = roofline_.roofs;
    const double first = std::pow(10, low_x_), last = std::pow(10, high_x_), floor = std::pow(10, low_y_);
    double highest = 0;
    for (const auto& [peak, name] : {std::pair{roofs.int8_peak, "int8 peak"}, std::pair{roofs.f32_peak, "f32 peak"}}) {
      if (peak <= 0) continue;
      highest = std::max(highest, peak);
      const double ridge = roofs.bandwidth > 0 ? std::clamp(peak / roofs.bandwidth, first, last) : first;
      line(x(ridge), y(peak / 1e9), width - right, y(peak / 1e9), "stroke=\"#c33\" stroke-width=\"2\"");
      text(width - right + 6, y(peak / 1e9) + 4, message(name, " ", number(peak / 1e9)), "fill=\"#c33\"");
    }
    if (roofs.bandwidth <= 0) return;
    const double end = std::min(highest > 0 ? highest / roofs.bandwidth : last, last);
    const double begin = std::max(first, floor * 1e9 / roofs.bandwidth);
    if (begin >= end) return;
    const auto speed = [&](double intensity) { return intensity * roofs.bandwidth / 1e9; };
    line(x(begin), y(speed(begin)), x(end), y(speed(end)), "stroke=\"#36c\" stroke-width=\"2\"");
    text(x(begin) + 8, offset_ + top + 14, message("read bandwidth ", number(roofs.bandwidth / 1e9), " GB/s"),
         "fill=\"#36c\"");
  }

  /// Numbers at the points, names beside the chart: points may lie close together.
  void points() {
    double at = offset_ + height - bottom - 16 * static_cast<double>(points_.size()) + 8;
    for (size_t i = 0; i < points_.size(); ++i, at += 16) {
      const RooflineRow& row = *points_[i];
      const double px = x(row.operations / row.bytes), py = y(row.operations / row.seconds / 1e9);
      const std::string label = std::to_string(i + 1);
      out_ += message("<circle cx=\"", number(px), "\" cy=\"", number(py), "\" r=\"4\" fill=\"",
                      row.integer ? "#c33" : "#393", "\"><title>", escaped(row.op), " ", escaped(row.kernel),
                      "</title></circle>\n");
      text(px + 6, py - 5, label);
      const std::string share = number(100 * row.bound_seconds(roofline_.roofs) / row.seconds);
      text(width - right + 6, at, message(label, "  ", row.op, ", ", share, " % of ", row.bound(roofline_.roofs)));
    }
  }

  const Roofline& roofline_;
  double offset_;
  std::vector<const RooflineRow*> points_;
  double low_x_ = 1e300, high_x_ = 0, low_y_ = 1e300, high_y_ = 0;
  std::string out_;
};

}  // namespace

std::string roofline_svg(const std::vector<Roofline>& rooflines) {
  const double total = height * static_cast<double>(std::max<size_t>(rooflines.size(), 1));
  std::string out = message("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ", width, " ", total,
                            "\" width=\"", width, "\" height=\"", total,
                            "\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" "
                            "height=\"100%\" fill=\"white\"/>\n");
  for (size_t i = 0; i < rooflines.size(); ++i) out += Chart(rooflines[i], height * static_cast<double>(i)).draw();
  return out + "</svg>\n";
}

}  // namespace nibble::cli
