"""The kernel of a notebook: ``python3`` is the interpreter of this process, whatever a user's kernels are called.

Jupyter finds a user's kernel ``python3`` before that of an environment in some set-ups, and with it other packages.
"""

from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from traitlets import default


class ProjectKernels(KernelSpecManager):
    """The kernels that a user has, with ``python3`` as the interpreter of this process.

    Attributes:
        arguments: what its kernels are started with.
    """

    arguments: tuple[str, ...] = ()

    def find_kernel_specs(self) -> dict[str, str]:
        """Return the folder of each kernel."""
        return {**super().find_kernel_specs(), NATIVE_KERNEL_NAME: RESOURCES}

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Return how a kernel is started.

        Raises:
            NoSuchKernel: there is none of this name.
        """
        if kernel_name.lower() != NATIVE_KERNEL_NAME:
            return super().get_kernel_spec(kernel_name)
        native = get_kernel_dict(extra_arguments=list(self.arguments))
        # The name that notebooks in git have: saving one does not change it.
        return KernelSpec(resource_dir=RESOURCES, **{**native, "display_name": "Python 3"})


class LabKernels(ProjectKernels):
    """The same for JupyterLab, where an edited module counts from the next cell on."""

    arguments = ("--ext=autoreload", "--InteractiveShellApp.exec_lines=%autoreload 2")


class ProjectKernel(AsyncKernelManager):
    """Starts the kernels of a batch run."""

    async def _async_interrupt_kernel(self) -> None:
        """Interrupt the kernel, but not on its way out: it is idle then, and may call the interruption an error."""
        if not self.shutting_down:
            await super()._async_interrupt_kernel()

    @default("kernel_spec_manager")
    def _project_kernels(self) -> KernelSpecManager:
        return ProjectKernels(parent=self)
