// _C: what was built and what this processor can do. No tensors pass through here.
#include <pybind11/pybind11.h>

#include <string>

#include "build_info.h"
#include "cpu/capability.h"

namespace py = pybind11;
namespace cpu = equiconv::cpu;

PYBIND11_MODULE(_C, m) {
  const auto name = [](cpu::Capability c) { return cpu::capability_names[static_cast<std::size_t>(c)]; };
  const bool cuda = *equiconv::build_info::nvcc != '\0';
  const auto unless_cpu_only = [&](const char* text) -> py::object {
    return cuda ? py::object(py::str(text)) : py::none();
  };

  py::dict info;
  info["version"] = equiconv::build_info::version;
  info["compiler"] = equiconv::build_info::compiler;
  info["nvcc"] = unless_cpu_only(equiconv::build_info::nvcc);
  info["cuda_archs"] = unless_cpu_only(equiconv::build_info::cuda_archs);
  info["torch_headers"] = equiconv::build_info::torch_headers;
  info["torch_target"] = std::to_string(equiconv::build_info::torch_target >> 56) + "." +
                         std::to_string(equiconv::build_info::torch_target >> 48 & 0xff);
  info["cpu_capability"] = name(cpu::cpu_capability());  // set wrongly, it throws: the import fails
  info["cpu_detected"] = name(cpu::detected_capability());
  m.attr("build_info") = info;
}
