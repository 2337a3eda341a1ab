"""The convolutions of a net by fused graphs of NVIDIA's cuDNN frontend (package nvidia-cudnn-frontend, module cudnn).

Forward, a graph is a convolution and the two sums of its output that BN needs; backward, the gradient of the input with
ReLU's mask, and the gradient of the weights. The first plan that cuDNN's heuristics propose and that is deterministic
is taken. BN's other passes, shortcuts, loss and optimizer are left out, so the rate is a bound for training this way.
**Not yet run on a GPU**.
"""

import torch
from torch import Tensor, nn

from benchmarks.measuring import BATCH
from benchmarks.nets import make_net, read_net
from benchmarks.variants import recorded
from resnet.models import image_size


class FrontendConvolutions:
    """All convolutions of a net but the first one, which has 3 channels; in bf16, channels-last. On a GPU only."""

    runs, settling = 1, 2

    def __init__(self, model: str, device: torch.device):
        import cudnn

        self._cudnn, self._device = cudnn, device
        self._handle = cudnn.create_handle()
        self._plans = []
        for x, weight, y, conv in convolutions(model, device)[1:]:
            for graph, tensors in graphs(cudnn, self._handle, x, weight, y, conv):
                self._plans.append((graph, tensors, self._build(graph)))
        self._replay = recorded(self._work, device)

    def _build(self, graph) -> Tensor:
        """Choose the graph's plan; returns its workspace."""
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([self._cudnn.heur_mode.A, self._cudnn.heur_mode.FALLBACK])
        graph.deselect_numeric_notes([self._cudnn.numerical_note.NONDETERMINISTIC])
        graph.check_support()
        graph.build_plans()
        return torch.empty(max(1, graph.get_workspace_size()), dtype=torch.uint8, device=self._device)

    def _work(self) -> None:
        self._cudnn.set_stream(handle=self._handle, stream=torch.cuda.current_stream(self._device).cuda_stream)
        for graph, tensors, workspace in self._plans:
            graph.execute(tensors, workspace, handle=self._handle)

    def advance(self, steps: int) -> None:
        """Run the graphs of a step ``steps`` times."""
        for _ in range(steps):
            self._replay()


def convolutions(model: str, device: torch.device | str) -> list[tuple[Tensor, Tensor, Tensor, nn.Conv2d]]:
    """Return input, weight, output and module of each convolution of a net; random values, bf16, channels-last."""
    shapes, size = [], image_size(read_net(model)[0])
    with torch.device("meta"):
        net = make_net(model)
        for conv in (module for module in net.modules() if isinstance(module, nn.Conv2d)):
            conv.register_forward_hook(lambda conv, x, y: shapes.append((x[0].shape, conv.weight.shape, y.shape, conv)))
        net(torch.empty(BATCH, 3, size, size))

    def draw(shape: torch.Size) -> Tensor:
        drawn = torch.randn(shape, device=device, dtype=torch.bfloat16)
        return drawn.contiguous(memory_format=torch.channels_last)

    return [(*map(draw, tensors), conv) for *tensors, conv in shapes]


def graphs(cudnn, handle, x: Tensor, weight: Tensor, y: Tensor, conv: nn.Conv2d) -> list[tuple[object, dict]]:
    """Return the three graphs of a convolution, each with the tensors that it reads and writes."""
    types = cudnn.data_type
    where = {"padding": [*conv.padding], "stride": [*conv.stride], "dilation": [*conv.dilation]}

    def begin():
        return cudnn.pygraph(
            io_data_type=types.BFLOAT16,
            intermediate_data_type=types.FLOAT,
            compute_data_type=types.FLOAT,
            handle=handle,
        )

    def like(node, tensor: Tensor):
        return node.set_dim([*tensor.shape]).set_stride([*tensor.stride()])

    channels = (1, y.shape[1], 1, 1)
    sums, squares = (torch.empty(channels, device=y.device) for _ in range(2))
    forward = begin()
    image, kernel = forward.tensor_like(x), forward.tensor_like(weight)
    out = like(forward.conv_fprop(image=image, weight=kernel, **where), y)
    out.set_output(True)
    statistics = [node.set_output(True).set_data_type(types.FLOAT) for node in forward.genstats(out)]
    fused = [(forward, {image: x, kernel: weight, out: y, **dict(zip(statistics, (sums, squares)))})]

    backward, gradient = begin(), torch.empty_like(x)
    loss, kernel, mask = backward.tensor_like(y), backward.tensor_like(weight), backward.tensor_like(x)
    inner = like(backward.conv_dgrad(loss=loss, filter=kernel, **where), x)
    out = like(backward.relu_backward(loss=inner, input=mask), x).set_output(True)
    fused.append((backward, {loss: y, kernel: weight, mask: x, out: gradient}))

    backward, gradient = begin(), torch.empty_like(weight, dtype=torch.float32)
    image, loss = backward.tensor_like(x), backward.tensor_like(y)
    out = like(backward.conv_wgrad(image=image, loss=loss, **where), gradient).set_output(True)
    out.set_data_type(types.FLOAT)
    fused.append((backward, {image: x, loss: y, out: gradient}))
    return fused
