"""Write the results of a work dir on one page: `mmseg-volo report WORK_DIR`, and after every training and test."""

from mmseg_volo.report.page import write_report

__all__ = ['write_report']
