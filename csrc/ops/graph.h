// A Graph as a binding is given it, and the tensors of its points and pairs.
#pragma once
#include "../pair_message.h"
#include "check.h"

namespace equiconv::ops {

// A Graph's pairs, by receiver and by sender.
struct GraphTensors {
  const Tensor &receiver_offsets, &senders, &receiver_rows, &sender_offsets, &receivers, &sender_rows;

  PairGroups by_receiver() const { return groups(receiver_offsets, senders, receiver_rows); }
  PairGroups by_sender() const { return groups(sender_offsets, receivers, sender_rows); }

  static PairGroups groups(const Tensor& offsets, const Tensor& neighbours, const Tensor& rows) {
    return {offsets.const_data_ptr(), neighbours.const_data_ptr(), rows.const_data_ptr(),
            offsets.scalar_type() == ScalarType::Long};
  }
};

// What Graph makes; that its indices are in range, it has checked.
inline void check_graph(const char* op, const GraphTensors& graph, const Tensor& x) {
  const std::int64_t pairs = graph.senders.dim() ? graph.senders.size(0) : 0;
  for (const Tensor* t : {&graph.receiver_offsets, &graph.senders, &graph.receiver_rows,
                          &graph.sender_offsets, &graph.receivers, &graph.sender_rows}) {
    if (!(t->device() == x.device()))
      refuse(op, ": graph must be on the device of x, ", text(x.device()), ", but is on ", text(t->device()));
    const bool offsets = t == &graph.receiver_offsets || t == &graph.sender_offsets;
    const ScalarType dtype = t->scalar_type();
    if (t->dim() != 1 || !t->is_contiguous() || (dtype != ScalarType::Int && dtype != ScalarType::Long) ||
        dtype != graph.senders.scalar_type() || (offsets ? t->size(0) < 1 : t->size(0) != pairs))
      refuse(op, ": graph must be as equiconv.Graph makes it, but holds a tensor of shape ", text(t->sizes()),
             " and type ", text(dtype));
  }
}

// (row, orientation, entry), or (row, entry).
template <class Void>
Rows<Void> rows(Void* data, const Tensor& t) {
  return {data, dtype_of(t), t.stride(0), t.dim() == 3 ? t.stride(1) : 0, t.stride(t.dim() - 1)};
}
inline InputRows read(const Tensor& t) { return rows(t.const_data_ptr(), t); }
inline OutputRows write(const Tensor& t) { return rows(t.mutable_data_ptr(), t); }

}  // namespace equiconv::ops
