"""Converters of echocardiography datasets to nnU-Net's raw format, one folder for each. No torch is needed here."""
