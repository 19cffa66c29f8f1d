// From addresses in the code to names, files and lines.
#include <cxxabi.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstring>

#include "internal.h"

namespace cuda_on_cpu {
namespace {

struct Frame {
  std::string function, file;  // file with its line
};

std::string without_folder(std::string s) {
  while (!s.empty() && s.back() == '\n') s.pop_back();
  if (const auto end = s.find(" (disc"); end != std::string::npos) s.resize(end);
  return s.substr(s.rfind('/') + 1);
}

// Only the emulator itself has its headers and sources below this folder.
bool is_emulator(const std::string& file) {
  static const std::string folder = [] {
    const std::string here = __FILE__;
    return here.substr(0, here.rfind("/src/") + 1);
  }();
  return !file.compare(0, folder.size() + 4, folder + "src/") ||
         !file.compare(0, folder.size() + 8, folder + "include/");
}

// `convolve<float, Rows>` of `void (anonymous namespace)::convolve<float, space::Rows>(int)`.
std::string short_name(const std::string& full) {
  std::string s;
  for (std::size_t i = 0; i < full.size(); ++i) {
    static const std::string anonymous = "(anonymous namespace)::";
    if (!full.compare(i, anonymous.size(), anonymous)) i += anonymous.size() - 1;
    else if (full[i] == '(' && full.compare(i, 10, "(anonymous")) break;
    else s += full[i];
  }
  std::string out, word;
  for (const char c : s) {
    if (std::isalnum(static_cast<unsigned char>(c)) || c == '_') word += c;
    else if (c == ':') word.clear();
    else out += word + c, word.clear();
  }
  out += word;
  int depth = 0;  // a template's name begins with what it returns
  std::size_t begin = 0;
  for (std::size_t i = 0; i < out.size(); ++i) {
    depth += (out[i] == '<') - (out[i] == '>');
    if (out[i] == ' ' && depth == 0) begin = i + 1;
  }
  return out.substr(begin);
}

// The calls that were inlined at an address, innermost first.
std::vector<Frame> frames_at(const void* pc) {
  std::vector<Frame> frames;
  Dl_info info{};
  if (!dladdr(pc, &info) || !info.dli_fname) return frames;
  char command[1024], line[4096];
  std::snprintf(command, sizeof command, "addr2line -f -C -i -e '%s' 0x%zx", info.dli_fname,
                std::size_t(static_cast<const char*>(pc) - static_cast<const char*>(info.dli_fbase)));
  if (FILE* p = popen(command, "r")) {
    while (std::fgets(line, sizeof line, p)) {
      const std::string function = short_name(line);
      if (!std::fgets(line, sizeof line, p)) break;
      frames.push_back({function, line});
    }
    pclose(p);
  }
  return frames;
}
const std::vector<Frame>& frames_of_call(const void* return_address) {
  static auto& known = *new std::unordered_map<const void*, std::vector<Frame>>;
  const auto [at, is_new] = known.try_emplace(return_address);
  if (is_new) at->second = frames_at(static_cast<const char*>(return_address) - 1);
  return at->second;
}

}  // namespace

const void* library_base() {
  Dl_info info{};
  dladdr(reinterpret_cast<const void*>(&library_base), &info);
  return info.dli_fbase;
}

std::string place(const void* return_address) {
  for (const Frame& f : frames_of_call(return_address))
    if (!is_emulator(f.file)) return without_folder(f.file);
  return "?";
}
std::string place(Site s) {
  if (s.file) return without_folder(s.file) + ":" + std::to_string(s.line);
  std::string places;
  for (const Frame& f : frames_of_call(s.pc))
    if (!is_emulator(f.file)) places += (places.empty() ? "" : ", called at ") + without_folder(f.file);
  return places;
}

bool same_place(Site a, Site b) {
  if (a.file || b.file)
    return a.line == b.line && a.file && b.file && (a.file == b.file || !std::strcmp(a.file, b.file));
  if (a.pc == b.pc) return true;
  // The compiler may have copied a call: the copies have one chain of places.
  const auto &x = frames_of_call(a.pc), &y = frames_of_call(b.pc);
  if (x.size() != y.size()) return false;
  for (std::size_t i = 0; i < x.size(); ++i)
    if (without_folder(x[i].file) != without_folder(y[i].file)) return false;
  return true;
}

std::string kernel_name(const void* kernel) {
  const auto frames = frames_at(kernel);
  return frames.empty() ? "?" : frames.back().function;
}

// From the innermost call out to the kernel.
std::string trace(const std::vector<const void*>& return_addresses) {
  const std::string kernel = kernel_name(machine().kernel);
  std::string s;
  for (const void* pc : return_addresses)
    for (const Frame& f : frames_of_call(pc)) {
      if (is_emulator(f.file) || f.file.find("/include/c++/") != std::string::npos || f.file[0] == '?')
        continue;
      s += "\n    at " + without_folder(f.file) + " in " + f.function;
      if (f.function == kernel) return s;
    }
  return s;
}

}  // namespace cuda_on_cpu
